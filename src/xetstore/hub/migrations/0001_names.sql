-- Accounts, repositories that are git, buckets that are none, and all that belongs to them. A repository is a CAS
-- namespace: its files are those that the index grants to that.
CREATE TABLE hub_version (version INTEGER NOT NULL);

-- Users and organizations share one space of names. id: random, so that none is given again. name_key: the name in lower
-- case. kind: 'user' or 'org'.
CREATE TABLE account (
    id {number} NOT NULL,
    name VARCHAR(96) NOT NULL,
    name_key VARCHAR(96) NOT NULL,
    kind VARCHAR(8) NOT NULL,
    fullname VARCHAR(255),
    created_at {double} NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name_key)
);
CREATE INDEX account_by_kind ON account (kind, name_key);

-- role: 'read', 'write' or 'admin'.
CREATE TABLE member (
    org_id {number} NOT NULL,
    user_id {number} NOT NULL,
    role VARCHAR(8) NOT NULL,
    PRIMARY KEY (org_id, user_id),
    FOREIGN KEY(org_id) REFERENCES account (id) ON DELETE CASCADE,
    FOREIGN KEY(user_id) REFERENCES account (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX member_by_user ON member (user_id);

-- id: 16 random hex digits. digest: the SHA-256 of the token, which is kept nowhere. scope: 'read' or 'write'.
CREATE TABLE access_token (
    id VARCHAR(16) {bytewise} NOT NULL,
    user_id {number} NOT NULL,
    name VARCHAR(255) NOT NULL,
    digest {bytes} NOT NULL,
    scope VARCHAR(8) NOT NULL,
    created_at {double} NOT NULL,
    last_used_at {double},
    expires_at {double},
    PRIMARY KEY (id),
    UNIQUE (digest),
    FOREIGN KEY(user_id) REFERENCES account (id) ON DELETE CASCADE
);
CREATE INDEX access_token_by_user ON access_token (user_id, created_at, id);
CREATE INDEX access_token_by_age ON access_token (created_at, id);

-- Namespaces that a repository has, or had: none is given to another one, whose files tokens of before could read.
CREATE TABLE used_namespace (
    namespace VARCHAR(255) {bytewise} NOT NULL,
    PRIMARY KEY (namespace)
);

-- name_key: kind/owner/name in lower case. visibility: 'public' or 'private'. gated: 'auto' or 'manual', else NULL.
-- sdk: that of a space. next_number: of its next discussion. next_line: of its next line of revisions.
CREATE TABLE repository (
    id {number} NOT NULL,
    kind VARCHAR(16) NOT NULL,
    owner VARCHAR(96) NOT NULL,
    owner_key VARCHAR(96) NOT NULL,
    name VARCHAR(96) NOT NULL,
    name_key VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    visibility VARCHAR(16) NOT NULL,
    gated VARCHAR(8),
    sdk VARCHAR(32),
    creator VARCHAR(96) NOT NULL,
    created_at {double} NOT NULL,
    updated_at {double} NOT NULL,
    next_number INTEGER DEFAULT 1 NOT NULL,
    next_line INTEGER DEFAULT 1 NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name_key),
    UNIQUE (namespace)
);
CREATE INDEX repository_by_owner ON repository (owner_key, kind);

-- Names that a repository had before it was moved.
CREATE TABLE former_name (
    name_key VARCHAR(255) NOT NULL,
    repository_id {number} NOT NULL,
    PRIMARY KEY (name_key),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
);
CREATE INDEX former_name_by_repository ON former_name (repository_id);

-- kind: 1 commit, 2 tree, 3 blob, 4 tag, as git numbers them. size: bytes of the object. data: the object without its
-- header, deflated. Of a blob that is a pointer also what it points at: the SHA-256, the bytes, and the Xet file.
CREATE TABLE git_object (
    id {row_id} NOT NULL,
    repository_id {number} NOT NULL,
    oid {bytes} NOT NULL,
    kind INTEGER NOT NULL,
    size BIGINT NOT NULL,
    sha256 {bytes},
    file_size BIGINT,
    file {bytes},
    data {bytes} NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (repository_id, oid),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
);
CREATE INDEX git_object_by_sha256 ON git_object (repository_id, sha256);

-- name: refs/heads/main. oid: a commit, or an annotated tag.
CREATE TABLE ref (
    repository_id {number} NOT NULL,
    name VARCHAR(255) NOT NULL,
    oid {bytes} NOT NULL,
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};

-- A line is a run of commits, each the first parent of the next; a commit whose parent has a child begins a new line,
-- which goes on from commit `fork` of line `base`. So the first parents of any commit are ranges of numbers.
CREATE TABLE line (
    repository_id {number} NOT NULL,
    line INTEGER NOT NULL,
    base INTEGER,
    fork INTEGER,
    PRIMARY KEY (repository_id, line),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};

-- number: how many commits the first parents are, with this one. digest: of all that its caller asked for, by which the
-- same call is known when it comes again.
CREATE TABLE revision (
    repository_id {number} NOT NULL,
    line INTEGER NOT NULL,
    number INTEGER NOT NULL,
    oid {bytes} NOT NULL,
    tree {bytes} NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    author VARCHAR(255) NOT NULL,
    created_at {double} NOT NULL,
    digest {bytes},
    PRIMARY KEY (repository_id, line, number),
    UNIQUE (repository_id, oid),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX revision_by_digest ON revision (repository_id, digest);

-- The paths that a commit changed against its first parent, and the folders above them.
CREATE TABLE changed_path (
    repository_id {number} NOT NULL,
    path VARCHAR(1024) {bytewise} NOT NULL,
    line INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (repository_id, path, line, number),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};

-- A part of a large file that comes in parts: a Xet file of its own until the whole is put together.
CREATE TABLE lfs_part (
    repository_id {number} NOT NULL,
    sha256 {bytes} NOT NULL,
    number INTEGER NOT NULL,
    file {bytes} NOT NULL,
    size BIGINT NOT NULL,
    created_at {double} NOT NULL,
    PRIMARY KEY (repository_id, sha256, number),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};

-- modified_ms: unix milliseconds, as its uploader says.
CREATE TABLE bucket_file (
    repository_id {number} NOT NULL,
    path VARCHAR(1024) {bytewise} NOT NULL,
    file {bytes} NOT NULL,
    size BIGINT NOT NULL,
    modified_ms BIGINT NOT NULL,
    uploaded_at {double} NOT NULL,
    content_type VARCHAR(255),
    PRIMARY KEY (repository_id, path),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};
-- Empty files are no rows of the table file, nor granted: a bucket has one if this finds one.
CREATE INDEX bucket_file_empty ON bucket_file (repository_id) WHERE size = 0;

-- status: 'draft', 'open', 'closed' or 'merged'. Of a pull request also the branch that it is for, the commit at which it
-- left that, and once it is merged the one that brought it there. next_event: the position of its next event.
CREATE TABLE discussion (
    repository_id {number} NOT NULL,
    number INTEGER NOT NULL,
    title TEXT NOT NULL,
    is_pull_request INTEGER NOT NULL,
    status VARCHAR(8) NOT NULL,
    author VARCHAR(96) NOT NULL,
    base VARCHAR(255),
    fork {bytes},
    merge_oid {bytes},
    created_at {double} NOT NULL,
    next_event INTEGER DEFAULT 1 NOT NULL,
    PRIMARY KEY (repository_id, number),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};

-- kind: 'comment', 'status-change' or 'title-change'. content: the words of a comment, of which the first describes the
-- discussion; the new status; the new title, and in former the one before.
CREATE TABLE discussion_event (
    repository_id {number} NOT NULL,
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind VARCHAR(16) NOT NULL,
    author VARCHAR(96) NOT NULL,
    created_at {double} NOT NULL,
    content TEXT NOT NULL,
    former TEXT,
    edited_at {double},
    is_hidden INTEGER DEFAULT 0 NOT NULL,
    PRIMARY KEY (repository_id, number, position),
    FOREIGN KEY(repository_id, number) REFERENCES discussion (repository_id, number) ON DELETE CASCADE
) {clustered};

-- Who asked for the files of a gated repository. status: 'pending', 'accepted' or 'rejected'.
CREATE TABLE access_request (
    repository_id {number} NOT NULL,
    user_id {number} NOT NULL,
    status VARCHAR(8) NOT NULL,
    asked_at {double} NOT NULL,
    PRIMARY KEY (repository_id, user_id),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE,
    FOREIGN KEY(user_id) REFERENCES account (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX access_request_by_status ON access_request (repository_id, status, asked_at, user_id);
CREATE INDEX access_request_by_user ON access_request (user_id);

-- Of copies of other stores into this one: accounts and repositories that came from the store with this id. state: a
-- digest of the repository there, and last_object the largest id of its objects, when all of it had been copied.
CREATE TABLE copied_account (
    source VARCHAR(64) NOT NULL,
    account_id {number} NOT NULL,
    PRIMARY KEY (source, account_id),
    FOREIGN KEY(account_id) REFERENCES account (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX copied_account_by_account ON copied_account (account_id);
CREATE TABLE copied_repository (
    source VARCHAR(64) NOT NULL,
    repository_id {number} NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    last_object {number} DEFAULT 0 NOT NULL,
    state {bytes},
    PRIMARY KEY (source, repository_id),
    FOREIGN KEY(repository_id) REFERENCES repository (id) ON DELETE CASCADE
) {clustered};
CREATE INDEX copied_repository_by_repository ON copied_repository (repository_id);
