-- checked_sha256: that of the file's bytes, computed here; NULL until it was. The column sha256, the word of the first
-- uploader, is of older releases, and not read any more.
ALTER TABLE file ADD COLUMN checked_sha256 {bytes};

-- The SHA-256 that uploaders of a namespace claim for a file of theirs. Several may claim different ones, and none takes
-- the place of another. Those of a file whose SHA-256 was computed are that one.
CREATE TABLE sha256_claim (
    namespace VARCHAR(255) NOT NULL,
    file_id {number} NOT NULL,
    sha256 {bytes} NOT NULL,
    PRIMARY KEY (namespace, file_id, sha256),
    FOREIGN KEY(namespace, file_id) REFERENCES file_grant (namespace, file_id) ON DELETE CASCADE
) {clustered};
CREATE INDEX sha256_claim_by_sha256 ON sha256_claim (namespace, sha256);
INSERT INTO sha256_claim (namespace, file_id, sha256)
SELECT file_grant.namespace, file.id, file.sha256 FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file.sha256 IS NOT NULL;
