-- generation: which of the objects stored under a xorb's hash counts: the end of its key. Empty for the first one.
-- damaged_at: when the object was found damaged; nothing new leans on it from then on, until it is stored anew.
ALTER TABLE xorb ADD COLUMN generation VARCHAR(32) DEFAULT '' NOT NULL;
ALTER TABLE xorb ADD COLUMN damaged_at DOUBLE PRECISION;

-- Objects in whose place another one counts now. They are removed when those who read them are done.
CREATE TABLE superseded_object (
    "key" VARCHAR(255) NOT NULL,
    created_at {double} NOT NULL,
    PRIMARY KEY ("key")
);
