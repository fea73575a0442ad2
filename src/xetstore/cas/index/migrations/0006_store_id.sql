-- The random id of the store, which an object beside the others has, too. At most one row.
CREATE TABLE store (
    one INTEGER NOT NULL,
    id VARCHAR(32) NOT NULL,
    PRIMARY KEY (one)
);
