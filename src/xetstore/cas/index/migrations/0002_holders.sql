-- Which namespaces have uploaded a xorb, and so have shown that they possess it. Until now it was the one namespace of
-- an embedded store.
CREATE TABLE xorb_holder (
    xorb_id {number} NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    PRIMARY KEY (xorb_id, namespace),
    FOREIGN KEY(xorb_id) REFERENCES xorb (id) ON DELETE CASCADE
) {clustered};
INSERT INTO xorb_holder (xorb_id, namespace) SELECT id, 'default' FROM xorb;
