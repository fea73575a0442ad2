-- generation: which of the objects stored under a shard's hash counts: the end of its key. Empty for those of before.
-- damaged_at: when the object was found damaged; the next upload of the shard stores it anew.
ALTER TABLE shard ADD COLUMN generation VARCHAR(32) DEFAULT '' NOT NULL;
ALTER TABLE shard ADD COLUMN damaged_at DOUBLE PRECISION;

-- The id of the store, drawn at random: its objects have the same one. One row at most, whose number is 1.
CREATE TABLE store (
    number INTEGER NOT NULL,
    id VARCHAR(64) NOT NULL,
    PRIMARY KEY (number),
    CHECK (number = 1)
);
