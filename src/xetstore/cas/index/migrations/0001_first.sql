-- A store of one namespace. One row per xorb, file, eligible chunk, grant and edge, and one per few hundred terms of a
-- file: never one per chunk.
CREATE TABLE schema_version (version INTEGER NOT NULL);

CREATE TABLE xorb (
    id {row_id} NOT NULL,
    hash {bytes} NOT NULL,
    region_bytes BIGINT NOT NULL,
    raw_bytes BIGINT NOT NULL,
    chunk_count INTEGER NOT NULL,
    created_at {double} NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (hash)
);

-- Ids grow in the order of registration: "most recent first" is a walk down the key.
CREATE TABLE file (
    id {row_id} NOT NULL,
    hash {bytes} NOT NULL,
    size BIGINT NOT NULL,
    sha256 {bytes},
    term_count BIGINT NOT NULL,
    xorb_count BIGINT NOT NULL,
    created_at {double} NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (hash)
);

-- first_byte: where in the file the first term of the segment begins. terms: packed, see queries/rows.py.
CREATE TABLE file_segment (
    file_id {number} NOT NULL,
    first_byte BIGINT NOT NULL,
    terms {bytes} NOT NULL,
    PRIMARY KEY (file_id, first_byte),
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE
);

-- first_byte: where in the file the xorb is used first. No two terms begin at one byte, and the key is in file order.
CREATE TABLE edge (
    file_id {number} NOT NULL,
    first_byte BIGINT NOT NULL,
    xorb_id {number} NOT NULL,
    PRIMARY KEY (file_id, first_byte),
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE,
    FOREIGN KEY(xorb_id) REFERENCES xorb (id)
) {clustered};
CREATE UNIQUE INDEX edge_by_xorb ON edge (xorb_id, file_id);

-- chunk_key: the first 8 bytes of an eligible chunk's hash, as a number. Which chunk it is, the xorb's footer tells.
CREATE TABLE dedup (
    chunk_key BIGINT NOT NULL,
    xorb_id {number} NOT NULL,
    PRIMARY KEY (chunk_key, xorb_id),
    FOREIGN KEY(xorb_id) REFERENCES xorb (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX dedup_by_xorb ON dedup (xorb_id);

CREATE TABLE file_grant (
    namespace VARCHAR(255) NOT NULL,
    file_id {number} NOT NULL,
    created_at {double} NOT NULL,
    PRIMARY KEY (namespace, file_id),
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX file_grant_by_file ON file_grant (file_id);

CREATE TABLE shard (
    hash {bytes} NOT NULL,
    size BIGINT NOT NULL,
    created_at {double} NOT NULL,
    PRIMARY KEY (hash)
);

CREATE TABLE dedup_key (
    id {row_id} NOT NULL,
    "key" {bytes} NOT NULL,
    created_at {double} NOT NULL,
    PRIMARY KEY (id)
);
