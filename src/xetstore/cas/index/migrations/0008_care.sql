-- doomed_at: since when a collection has seen no file made of the xorb; it is deleted when the grace has passed since then,
-- and since offered_at. checked_at: when all bytes of the object were last known to be well: verified at their arrival,
-- read by a check. 0: never.
ALTER TABLE xorb ADD COLUMN doomed_at {double};
ALTER TABLE xorb ADD COLUMN checked_at {double} DEFAULT 0 NOT NULL;
CREATE INDEX xorb_doomed ON xorb (doomed_at) WHERE doomed_at IS NOT NULL;
CREATE INDEX xorb_by_check ON xorb (checked_at, id);
CREATE INDEX xorb_damaged ON xorb (id) WHERE damaged_at IS NOT NULL;
ALTER TABLE shard ADD COLUMN checked_at {double} DEFAULT 0 NOT NULL;
CREATE INDEX shard_by_check ON shard (checked_at, id);
CREATE INDEX shard_damaged ON shard (id) WHERE damaged_at IS NOT NULL;

-- xorb.garbage_at: since when a file less is made of the xorb; NULL once a rewrite has looked at it. shard.stale_at: since
-- when the object of the shard does not tell what its rows do: of a file that is gone, or has other terms by now.
ALTER TABLE xorb ADD COLUMN garbage_at {double};
ALTER TABLE shard ADD COLUMN stale_at {double};
CREATE INDEX xorb_garbage ON xorb (id) WHERE garbage_at IS NOT NULL;
CREATE INDEX shard_stale ON shard (id) WHERE stale_at IS NOT NULL;
CREATE INDEX shard_unlinked ON shard (id) WHERE is_linked = 0;

-- Grants that were taken away, and can be given back until they are collected. created_at: that of the grant.
CREATE TABLE deleted_grant (
    namespace VARCHAR(255) NOT NULL,
    file_id {number} NOT NULL,
    created_at {double} NOT NULL,
    deleted_at {double} NOT NULL,
    PRIMARY KEY (namespace, file_id),
    FOREIGN KEY(file_id) REFERENCES file (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX deleted_grant_by_file ON deleted_grant (file_id);
CREATE INDEX deleted_grant_by_time ON deleted_grant (deleted_at);
-- The last ones first.
CREATE INDEX deleted_grant_by_namespace ON deleted_grant (namespace, deleted_at, file_id);
-- What the namespace claimed of it: see sha256_claim.
CREATE TABLE deleted_claim (
    namespace VARCHAR(255) NOT NULL,
    file_id {number} NOT NULL,
    sha256 {bytes} NOT NULL,
    PRIMARY KEY (namespace, file_id, sha256),
    FOREIGN KEY(namespace, file_id) REFERENCES deleted_grant (namespace, file_id) ON DELETE CASCADE
) {clustered};

-- A chore is care that one runner at a time does: a collection, a scrub, a snapshot. token: grows with each runner, so
-- that one which was taken for dead changes nothing any more. expires_at: until when it is the runner's. ended_at: when
-- it last came to an end. position: how far the one under way has come. report: what the last one did, as JSON.
CREATE TABLE chore (
    name VARCHAR(64) NOT NULL,
    token BIGINT NOT NULL,
    holder VARCHAR(255) NOT NULL,
    expires_at {double} NOT NULL,
    ended_at {double},
    position TEXT,
    report TEXT,
    PRIMARY KEY (name)
);

-- The most that the files of a namespace may have together, or of all repositories of an owner of that name, NULL for no
-- limit, and what they have.
CREATE TABLE quota (
    namespace VARCHAR(255) NOT NULL,
    max_bytes BIGINT,
    max_files BIGINT,
    used_bytes BIGINT NOT NULL,
    used_files BIGINT NOT NULL,
    PRIMARY KEY (namespace)
);
-- The namespaces that count: that itself, and those of the repositories.
CREATE TABLE quota_namespace (
    namespace VARCHAR(255) NOT NULL,
    quota VARCHAR(255) NOT NULL,
    PRIMARY KEY (namespace, quota),
    FOREIGN KEY(quota) REFERENCES quota (namespace) ON DELETE CASCADE
) {clustered};
CREATE INDEX quota_namespace_by_quota ON quota_namespace (quota);
