-- Small secret documents by name. version: grows by 1 with each change.
CREATE TABLE access_version (version INTEGER NOT NULL);
CREATE TABLE secret (
    name VARCHAR(255) NOT NULL,
    data {bytes} NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (name)
);
