-- deleted_at: since when a repository is deleted, and can be given back; 0 once that is over, and all of it goes. Its name_key
-- is one that no name has then. collected_at: when it was last looked through for what nothing names. shrunk_at: when
-- something of its history was last taken away for good.
ALTER TABLE repository ADD COLUMN deleted_at {double};
ALTER TABLE repository ADD COLUMN collected_at {double} DEFAULT 0 NOT NULL;
ALTER TABLE repository ADD COLUMN shrunk_at {double} DEFAULT 0 NOT NULL;
CREATE INDEX repository_deleted ON repository (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX repository_by_collection ON repository (collected_at, id);

-- ended_at: since when the repository of the namespace is no more. Tokens of before may write to it for a while.
ALTER TABLE used_namespace ADD COLUMN ended_at {double};
CREATE INDEX used_namespace_ended ON used_namespace (ended_at) WHERE ended_at IS NOT NULL;

-- The question which files nothing names any more.
CREATE INDEX git_object_by_file ON git_object (repository_id, file) WHERE file IS NOT NULL;
CREATE INDEX bucket_file_by_file ON bucket_file (repository_id, file);

-- Where refs were that are deleted, or were moved to what does not lead to it (a squash): kept from collection for a while.
-- deleted_at: with a minus before it once that is over, and of what is not kept at all.
CREATE TABLE deleted_ref (
    id {row_id} NOT NULL,
    repository_id {number} NOT NULL,
    name VARCHAR(255) NOT NULL,
    oid {bytes} NOT NULL,
    deleted_at {double} NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
);
CREATE INDEX deleted_ref_by_repository ON deleted_ref (repository_id, deleted_at);
CREATE INDEX deleted_ref_by_time ON deleted_ref (deleted_at);

-- Files of buckets that were deleted, or replaced, and can be given back for a while.
CREATE TABLE deleted_bucket_file (
    id {row_id} NOT NULL,
    repository_id {number} NOT NULL,
    path VARCHAR(1024) {bytewise} NOT NULL,
    file {bytes} NOT NULL,
    size BIGINT NOT NULL,
    modified_ms BIGINT NOT NULL,
    uploaded_at {double} NOT NULL,
    content_type VARCHAR(255),
    deleted_at {double} NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
);
CREATE INDEX deleted_bucket_file_by_path ON deleted_bucket_file (repository_id, path);
CREATE INDEX deleted_bucket_file_by_file ON deleted_bucket_file (repository_id, file);
CREATE INDEX deleted_bucket_file_by_time ON deleted_bucket_file (deleted_at);

-- Of a copied repository: digests of the refs that it was given, and when the one of the source had shrunk by then.
ALTER TABLE copied_repository ADD COLUMN refs {bytes};
ALTER TABLE copied_repository ADD COLUMN shrunk_at {double} DEFAULT 0 NOT NULL;
