-- Room for collecting. offered_at: when a client last stored the xorb, or was told of it while no file was made of it; a
-- transaction that takes it out of its last file writes the present there. NULL: not known, which is as if it were now.
ALTER TABLE xorb ADD COLUMN offered_at DOUBLE PRECISION;

-- A shard gets a number. is_linked: 1 once its edges are in the two tables below; those of an older shard are not, and
-- its object tells them.
CREATE TABLE numbered_shard (
    id {row_id} NOT NULL,
    hash {bytes} NOT NULL,
    size BIGINT NOT NULL,
    created_at {double} NOT NULL,
    is_linked INTEGER DEFAULT 0 NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (hash)
);
INSERT INTO numbered_shard (hash, size, created_at) SELECT hash, size, created_at FROM shard ORDER BY created_at;
DROP TABLE shard;
ALTER TABLE numbered_shard RENAME TO shard;

-- The files and the xorbs that a shard names: what is deleted stays deleted when the index is made anew from shards.
CREATE TABLE shard_file (
    shard_id {number} NOT NULL,
    file_id {number} NOT NULL,
    PRIMARY KEY (shard_id, file_id),
    FOREIGN KEY(shard_id) REFERENCES shard (id) ON DELETE CASCADE,
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX shard_file_by_file ON shard_file (file_id);
CREATE TABLE shard_xorb (
    shard_id {number} NOT NULL,
    xorb_id {number} NOT NULL,
    PRIMARY KEY (shard_id, xorb_id),
    FOREIGN KEY(shard_id) REFERENCES shard (id) ON DELETE CASCADE,
    FOREIGN KEY(xorb_id) REFERENCES xorb (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX shard_xorb_by_xorb ON shard_xorb (xorb_id);

-- The key for dedup answers is row 1.
DELETE FROM dedup_key WHERE id <> 1;
