//! Makes the fixture of the newest schema version, before that version ships:
//! `cargo test --lib store::tests::fixture -- --ignored`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, named_params};

use crate::oauth::signing_key::SigningKey;
use crate::store::migrations::NEWEST;
use crate::store::{Place, Store, Transaction, temporary};

/// A row in each table, one that records of this version could be.
const ROWS: &str = "
    INSERT INTO tenant VALUES ('sales', 1000);
    INSERT INTO user VALUES (:id, 'ops@two.example.com', '$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$', 0,
        '{\"default\":[\"links.approve\"]}', 1000, NULL);
    INSERT INTO api_key VALUES (:digest, :id, 'deploy', '[\"peers.get\"]', 1000, 253402300799999, 2000, 253402300799999);
    INSERT INTO role VALUES (:id, 'sales', 'reader', '[\"peers.get\"]', 1000);
    INSERT INTO held_role VALUES (:id, 'sales', :id);
    INSERT INTO session VALUES (:digest, :id, 1, 1000, 253402300799999);
    INSERT INTO ib_app VALUES (:id, 'default', 'instance1', '5f0c', '[\"https://one.example.com:7443/oauth/callback\"]',
        '[\"authorization_code\",\"refresh_token\"]', 'p2pi', NULL, NULL, 0, 1000,
        '{\"method\":\"none\",\"dpop\":true,\"introspects\":[]}', NULL);
    INSERT INTO client_secret VALUES (:id, :id, :hash, 1000, NULL, NULL);
    INSERT INTO grant VALUES (:id, :id, :id, 'p2pi', 1, 1000, NULL, NULL, NULL, NULL, 253402300799999, :binding,
        'password', 0);
    INSERT INTO authorization VALUES (:id, :id, :id, :digest, 'https://one.example.com:7443/oauth/callback', :state, 'p2pi',
        'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', 1, 'exchanged', 2000, :digest, :id, NULL,
        1, '47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU', :digest);
    INSERT INTO refresh_token VALUES (:digest, :id, 1, 'current', 1000, 1000, 1, 1000, 0, 0, NULL, :repeat);
    INSERT INTO access_token VALUES (:digest, :id, 1, 'p2pi', 1000, 253402300799999, 0, :binding);
    INSERT INTO ob_app VALUES (:id, 'default', 'instance2', '5f0c', :secret, 'authorization_code', 'p2pi',
        'https://two.example.com:7443', NULL, NULL, NULL, 0, 1000, 'private_key_jwt', :key, :next_key, 253402300799999, 'require');
    INSERT INTO peer VALUES (:id, 'default', 'instance2', 'https://two.example.com:7443', NULL, 'oauth', :id, NULL, NULL, NULL, NULL,
        0, NULL, NULL, 1000, 1, NULL, NULL);
    INSERT INTO held_token VALUES (:id, 1, :access, :refresh, 1000, 1000, 1, 3600000, NULL, 'p2pi', 'ops@two.example.com', 1000, 1000,
        0, 0, NULL, NULL, NULL, :held_key, 1);
    INSERT INTO broken_link VALUES (:id, 1000, 'revoked');
    INSERT INTO ticket VALUES (:digest, :id, 1, 1000, 253402300799999, 0, 0, :id, 253402300799999);
    INSERT INTO handshake VALUES (:id, :id, :digest, 1, :digest, :digest, '{}', 253402300799999, 'pressed', :verifier, NULL, NULL,
        253402300799999, :handshake_key);
    INSERT INTO outbox VALUES (:id, 'default', 'instance2', :token, 'refresh_token', 'https://two.example.com:7443/oauth/revoke', 0,
        '5f0c', NULL, 0, NULL, NULL, 0, 1000, 253402300799999, :id, :client_key, 'https://two.example.com:7443');
    INSERT INTO caller VALUES (:id, 'default', 'shop', :digest, NULL, 1000);
    INSERT INTO app_token VALUES (:digest, :id, 'p2pi', :binding, 1, 1000, 253402300799999, 0, 253402300799999);
    INSERT INTO used_once VALUES (:digest, 253402300799999);
    INSERT INTO pushed_request VALUES (:digest, :id, :parameters, '47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU', 1, 0, 253402300799999,
        253402300799999, '192.0.2.1', :id);
    INSERT INTO audit VALUES (NULL, 1000, 'user.created', 'done', 'process', 'uid 0', 'user', '01010101010101010101010101010101',
        'ops@two.example.com', NULL, NULL, '5f0c', '{\"given\":[\"login\",\"password\"]}');
    UPDATE audit_horizon SET believed_wall = 1000, believed_boot = 1000, believed_boot_id = 1, doubted_wall = 253402300799999,
        doubted_boot = 1000, doubted_boot_id = 1, doubt_left = 86400000;
    INSERT INTO realm VALUES (:id, 'Who may see the orders');
    INSERT INTO realm_role VALUES (:id, :id, 'ROLE_TEST', 'Sees them');
    INSERT INTO realm_member VALUES (:id, :id);
    INSERT INTO ending VALUES (:id, :id, 'password_changed', 0);
";

#[tokio::test]
#[ignore = "writes into tests/fixtures; for a schema version that has not shipped yet"]
async fn writes_the_fixture_of_the_newest_schema() {
    let (directory, store) = temporary();
    fill(&store).await;
    store.close().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store/{NEWEST}"));
    fs::create_dir_all(&folder).expect("a folder");
    let database = Connection::open(directory.path().join("p2pid.db")).expect("a database");
    fs::write(folder.join("database.sql"), dump(&database)).expect("written");
    let key = fs::read_to_string(directory.path().join("key")).expect("a key");
    fs::write(folder.join("key"), format!("# The fixture's; it seals nothing else.\n{key}")).expect("written");
}

async fn fill(store: &Store) {
    let seals = store.seals().clone();
    let rows = move |transaction: &Transaction<'_>| {
        let (id, digest) = ([1_u8; 16], [2_u8; 32]);
        let sealed = |table, column| seals.seal(Place { table, column, row: &id }, b"a secret of the fixture");
        let key = |table, column| seals.seal(Place { table, column, row: &id }, &SigningKey::generate().to_der());
        let parameters = Place { table: "pushed_request", column: "parameters_sealed", row: &digest };
        let repeat = Place { table: "refresh_token", column: "repeat_sealed", row: &digest };
        for statement in ROWS.split_inclusive(";\n") {
            let mut statement = transaction.prepare(statement)?;
            let values: &[(&str, &dyn rusqlite::ToSql)] = named_params! {
                ":id": id,
                ":digest": digest,
                ":hash": seals.hash("client secret", &id, b"a secret of the fixture"),
                ":repeat": seals.seal_bound(repeat, &[b"token"], b"an answer of the fixture"),
                ":state": sealed("authorization", "state_sealed"),
                ":secret": sealed("ob_app", "client_secret_sealed"),
                ":key": key("ob_app", "key_sealed"),
                ":next_key": key("ob_app", "next_key_sealed"),
                ":held_key": key("held_token", "key_sealed"),
                ":handshake_key": key("handshake", "key_sealed"),
                ":client_key": key("outbox", "client_key_sealed"),
                ":access": sealed("held_token", "access_sealed"),
                ":refresh": sealed("held_token", "refresh_sealed"),
                ":verifier": sealed("handshake", "verifier_sealed"),
                ":token": sealed("outbox", "token_sealed"),
                ":binding": "jkt:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
                ":parameters": seals.seal(parameters, b"client_id=5f0c&state=a+secret+of+the+fixture"),
            };
            for (name, value) in values {
                if let Some(index) = statement.parameter_index(name)? {
                    statement.raw_bind_parameter(index, value)?;
                }
            }
            statement.raw_execute()?;
        }
        Ok(())
    };
    store.write(rows).await.expect("a row in each table");
}

/// The whole database as SQL.
fn dump(database: &Connection) -> String {
    let number = |pragma| database.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).expect("a number");
    let mut sql = format!("PRAGMA application_id = {};\nPRAGMA user_version = {};\n", number("application_id"), number("user_version"));
    sql.push_str("PRAGMA foreign_keys = OFF;\nBEGIN;\n");
    let texts = |select: &str| {
        let mut statement = database.prepare(select).expect("a query");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<Vec<String>, _>>().expect("text")
    };
    for table in texts("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid") {
        writeln!(sql, "{table};").expect("a string grows");
    }
    for table in texts("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid") {
        let columns = texts(&format!("SELECT 'quote(' || name || ')' FROM pragma_table_info('{table}')")).join(" || ', ' || ");
        for row in texts(&format!("SELECT {columns} FROM {table}")) {
            writeln!(sql, "INSERT INTO {table} VALUES ({row});").expect("a string grows");
        }
    }
    sql.push_str("COMMIT;\n");
    sql
}
