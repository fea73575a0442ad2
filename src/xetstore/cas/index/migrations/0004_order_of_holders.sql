-- What a namespace uploaded last, and next: of millions of xorbs it may have uploaded three.
CREATE INDEX xorb_holder_by_namespace ON xorb_holder (namespace, xorb_id);
