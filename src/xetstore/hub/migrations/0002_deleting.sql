-- deleted_at: since when a repository is deleted, and can be given back until it is collected. Its name_key is one that no
-- name has then. collected_at: when its history was last looked through for what no ref leads to.
ALTER TABLE repository ADD COLUMN deleted_at {double};
ALTER TABLE repository ADD COLUMN collected_at {double} DEFAULT 0 NOT NULL;
CREATE INDEX repository_deleted ON repository (deleted_at) WHERE deleted_at IS NOT NULL;

-- Where refs were that are deleted, or were moved to what does not lead to it (a squash): kept from collection for a while.
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

-- By it is seen whether a bucket names a file that is to be deleted.
CREATE INDEX bucket_file_by_file ON bucket_file (repository_id, file);
