//! What the master keys seal: that a new one takes over everything, and an old one can go.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{TimeDelta, Utc};
use dealstream::config::{Config, SignUp};
use dealstream::crypto::{self, MasterKey, Vault};
use dealstream::db::directory::identities::{self, Visit};
use dealstream::db::sealed::{self, Rewrapped};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::architecture::sources;
use crate::mfa::{code, enrol, half, outcome, verify};
use crate::sensitive::{IBAN, TAX_ID, found, secretive, shown};
use crate::support::TestApp;
use crate::support::app::config;
use crate::support::mail::{Postman, database, with_mail};
use crate::support::recipes::{PASSWORD, signed_up};

/// A new master key of this name, as it is given.
fn key(name: &str) -> String {
    format!("{name}:{}", STANDARD.encode(crypto::random_bytes::<32>()))
}

fn vault(key: &str) -> Vault {
    Vault::new([MasterKey::parse(key).unwrap()]).unwrap()
}

/// How many values a master key has sealed, by table.
async fn kept(app: &TestApp, name: &str) -> Vec<(&'static str, i64)> {
    let all = sealed::kept(&app.app.db).await.unwrap();
    let of_it = all
        .into_iter()
        .filter(|kept| kept.master_key.as_deref() == Some(name));
    of_it.map(|kept| (kept.table, kept.values)).collect()
}

/// The columns of bytes that there are.
async fn columns_of_bytes(app: &TestApp) -> BTreeSet<(String, String)> {
    let columns = "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
                      AND a.atttypid IN ('bytea'::regtype, 'bytea[]'::regtype)";
    let rows = app.superuser().await.query(columns, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn every_column_of_bytes_is_known_to_be_sealed_or_not() {
    let app = TestApp::new().await;
    let by_data_keys = [("company_secrets", "sealed")];
    let hashes = [
        ("api_keys", "hash"),
        ("audit_entries", "hash"),
        ("audit_entries", "previous_hash"),
        ("company_secrets", "blind_index"),
        ("histories", "audit_hash"),
        ("histories", "audit_previous"),
        ("idempotency_keys", "input_hash"),
        ("links", "token_hash"),
        ("pending_sign_ins", "hash"),
        ("pending_sign_ins", "password_state"),
        ("provider_proofs", "challenge"),
        ("provider_proofs", "code_hash"),
        ("provider_proofs", "password_state"),
        ("provider_visits", "browser_hash"),
        ("provider_visits", "challenge"),
        ("provider_visits", "state_hash"),
        ("recovery_codes", "hash"),
        ("sessions", "family_hash"),
        ("sessions", "previous_hash"),
        ("sessions", "token_hash"),
    ];
    let by_master_keys = sealed::ALL.map(sealed::Column::name);
    let known: BTreeSet<(String, String)> = by_master_keys
        .into_iter()
        .chain(by_data_keys)
        .chain(hashes)
        .map(|(table, column)| (table.to_owned(), column.to_owned()))
        .collect();
    assert_eq!(
        columns_of_bytes(&app).await,
        known,
        "what a vault seals belongs into db::sealed::ALL"
    );
}

#[test]
fn whatever_a_vault_seals_is_sealed_for_a_column_that_is_known() {
    // Who seals here takes the context from `db::sealed`, itself or where the name of the function says so.
    let documented = [
        ("auth/keys.rs", "SIGNING_KEY"),
        ("auth/provider/door.rs", "PROVIDER_VISIT"),
        ("identity/mfa/mutations/mod.rs", "sealing_context"),
        ("mail/mod.rs", "sealed::"),
        ("sensitive/mod.rs", "DATA_KEY"),
        ("db/sealed.rs", "self.of("),
    ];
    let mut sealing = BTreeSet::new();
    for file in sources().iter().filter(|file| !file.path.starts_with("crypto")) {
        let plain: String = file.code.split_whitespace().collect();
        if plain.contains("vault.seal(") {
            let known = documented.iter().find(|(path, _)| *path == file.path);
            let (_, by) = known.unwrap_or_else(|| panic!("{}: into which column of db::sealed?", file.path));
            assert!(file.code.contains(by), "{}", file.path);
            sealing.insert(file.path.clone());
        }
    }
    assert_eq!(sealing.len(), documented.len(), "{sealing:?}");
}

#[tokio::test]
async fn a_new_master_key_takes_over_everything_and_the_old_one_can_go() {
    let (old, new) = (key("old"), key("new"));
    let url = database("sealed_all").await;
    let postman = Postman::start(0);
    let with = |keys: &str, sign_up| Config {
        master_keys: Some(keys.to_owned().into()),
        sign_up: Some(sign_up),
        ..with_mail(postman.port())
    };
    let before = TestApp::on(url.clone(), with(&old, SignUp::Open)).await;
    let grace = signed_up(&before, "rewrapped").await;
    let email = grace.query("{ viewer { user { email } } }", json!({})).await;
    let email = email["viewer"]["user"]["email"].as_str().unwrap().to_owned();
    before.verify(&email).await;
    let person = enrol(&grace).await;
    let company = secretive(&grace, "Acme", TAX_ID).await;
    let token = grace.token();
    let hash = crypto::token_hash("the state of a visit");
    let place = sealed::PROVIDER_VISIT.of(URL_SAFE_NO_PAD.encode(hash));
    let visit = Visit {
        browser_hash: hash.to_vec(),
        provider: "google".to_owned(),
        sealed: before.app.vault.seal(&place, b"a nonce").unwrap(),
        challenge: hash.to_vec(),
        return_to: "https://crm.example.com".to_owned(),
    };
    let soon = Utc::now() + TimeDelta::minutes(5);
    identities::expect(&before.app.db, &hash, &visit, soon)
        .await
        .unwrap();
    // A link that was mailed, with what somebody wants to found; and then a mail that nobody has sent yet.
    let verifying = TestApp::on(url.clone(), with(&old, SignUp::Verified)).await;
    let stop = CancellationToken::new();
    let delivering = tokio::spawn(verifying.app.mail.clone().deliver(stop.clone()));
    let founder = "founder@test.example";
    let input = json!({ "tenantName": "Founded", "name": "Fo", "email": founder, "password": PASSWORD });
    verifying
        .anon()
        .mutate("signUp", "SignUpInput", "mustConfirm", input)
        .await;
    let link = postman.nth(founder, 1).await.token();
    let mighty = before.superuser().await;
    let sent = async {
        while mighty.execute("SELECT FROM mails", &[]).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), sent).await.unwrap();
    stop.cancel();
    delivering.await.unwrap();
    let input = json!({ "email": email });
    before
        .anon()
        .mutate("requestPasswordReset", "RequestPasswordResetInput", "", input)
        .await;
    let sealed_by_old = kept(&before, "old").await;
    for column in sealed::ALL {
        let (table, _) = column.name();
        let values = sealed_by_old.iter().find(|(of, _)| *of == table);
        assert!(
            values.is_some_and(|(_, values)| *values > 0),
            "{table} has nothing in this test"
        );
    }

    let both = format!("{new},{old}");
    let meanwhile = TestApp::on(url.clone(), with(&both, SignUp::Open)).await;
    let (db, vault) = (&meanwhile.app.db, &meanwhile.app.vault);
    let done = sealed::rewrap(db, vault, |_, _| {}).await.unwrap();
    assert!(done.values >= 6 && done.unreadable == 0, "{done:?}");
    let again = sealed::rewrap(db, vault, |_, _| {}).await.unwrap();
    assert_eq!(again, Rewrapped::default(), "nothing is left");
    let told = sealed::told(vault, &sealed::kept(db).await.unwrap());
    assert!(
        told.contains("master key old  opens, values sealed by it: 0"),
        "{told}"
    );
    assert!(
        told.starts_with("master key new  seals, values sealed by it: "),
        "{told}"
    );
    assert!(told.contains("second_factors 1"), "{told}");
    // Whatever the list says: nowhere does anything begin as the old key's.
    let begins: Vec<u8> = [&[1, 3], b"old".as_slice()].concat();
    for (table, column) in columns_of_bytes(&before).await {
        let left = format!("SELECT FROM {table} WHERE substring({column} FROM 1 FOR 5) = $1");
        let left = mighty.execute(&left, &[&begins]).await.unwrap();
        assert_eq!(left, 0, "{table}.{column}");
    }

    // Nothing is sealed by what the root secret stands for either: it can be another.
    let settings = Config {
        jwt_secret: Some(
            "another-secret-that-only-this-test-would-use-0123456789"
                .to_owned()
                .into(),
        ),
        ..with(&new, SignUp::Verified)
    };
    let after = TestApp::on(url, settings).await;
    assert!(
        after.app.authenticate(&token).await.is_ok(),
        "who was signed in still is"
    );
    let verified = verify(&after, &half(&after, &email).await, &code(&person.secret, 1)).await;
    assert_eq!(outcome(&verified), "IN");
    let same = after.acting_as(grace.viewer().clone());
    let fields = shown(&same, &company).await;
    assert_eq!(
        (&fields["taxId"], &fields["bankAccount"]["iban"]),
        (&json!(TAX_ID), &json!(IBAN))
    );
    assert_eq!(found(&same, TAX_ID).await, [company]);
    let input = json!({ "token": link, "password": PASSWORD });
    let founded = after
        .anon()
        .mutate("completeSignUp", "CompleteSignUpInput", "accessToken", input)
        .await;
    assert!(founded["accessToken"].is_string());
    let visit = identities::take_visit(&after.app.db, &hash)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*after.app.vault.open(&place, &visit.sealed).unwrap(), b"a nonce");
    let stop = CancellationToken::new();
    let delivering = tokio::spawn(after.app.mail.clone().deliver(stop.clone()));
    assert_eq!(postman.nth(&email, 1).await.page(), "reset-password");
    stop.cancel();
    delivering.await.unwrap();
}

/// Mails that a vault has sealed, so many.
async fn mails(app: &TestApp, vault: &Vault, count: usize) {
    let (ids, texts): (Vec<String>, Vec<Vec<u8>>) = (0..count)
        .map(|_| {
            let id = Uuid::now_v7();
            (
                id.to_string(),
                vault.seal(&sealed::MAIL.of(id), b"a letter").unwrap(),
            )
        })
        .unzip();
    let insert = "INSERT INTO mails (id, sealed) SELECT id::uuid, sealed FROM unnest($1::text[], $2::bytea[]) AS new (id, sealed)";
    let inserted = app.superuser().await.execute(insert, &[&ids, &texts]).await;
    assert_eq!(inserted.unwrap(), u64::try_from(count).unwrap());
}

async fn texts(app: &TestApp) -> Vec<(String, Vec<u8>)> {
    let mails = "SELECT id::text, sealed FROM mails ORDER BY id";
    let rows = app.superuser().await.query(mails, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn what_was_interrupted_goes_on_where_it_stopped_and_what_cannot_be_opened_stays() {
    let (old, new, lost) = (key("old"), key("new"), key("lost"));
    let settings = Config {
        master_keys: Some(format!("{new},{old}").into()),
        ..config()
    };
    let app = TestApp::on(database("sealed_interrupted").await, settings).await;
    let (db, ring) = (&app.app.db, &app.app.vault);
    mails(&app, &vault(&lost), 3).await;
    mails(&app, &vault(&old), 450).await;
    let (stop, reported) = (CancellationToken::new(), Cell::new(0));
    let interrupted = sealed::rewrap(db, ring, |table, values| {
        assert_eq!(table, "mails");
        reported.set(reported.get() + values);
        stop.cancel();
    });
    assert_eq!(
        stop.run_until_cancelled(interrupted).await.map(|it| it.is_ok()),
        None
    );
    let left = kept(&app, "old").await;
    assert_eq!(left, [("mails", i64::try_from(450 - reported.get()).unwrap())]);
    assert!((1..450).contains(&reported.get()), "a part was done");
    let done = sealed::rewrap(db, ring, |_, values| reported.set(reported.get() + values))
        .await
        .unwrap();
    assert_eq!((done.unreadable, reported.get()), (3, 450));
    assert_eq!(kept(&app, "old").await, []);
    let told = sealed::told(ring, &sealed::kept(db).await.unwrap());
    assert!(
        told.contains("master key lost  is not in the ring, values sealed by it: 3 (mails 3)"),
        "{told}"
    );
    let (mut read, only_new) = (0, vault(&new));
    for (id, text) in texts(&app).await {
        read += usize::from(
            only_new
                .open(&sealed::MAIL.of(&id), &text)
                .is_ok_and(|it| *it == b"a letter"),
        );
    }
    assert_eq!(read, 450);
}

#[tokio::test]
async fn what_somebody_is_changing_is_left_to_them_and_not_waited_for() {
    let (old, new) = (key("old"), key("new"));
    let settings = Config {
        master_keys: Some(format!("{new},{old}").into()),
        ..config()
    };
    let app = TestApp::on(database("sealed_meanwhile").await, settings).await;
    let (db, ring) = (&app.app.db, &app.app.vault);
    mails(&app, &vault(&old), 20).await;
    let [(id, _), ..] = &texts(&app).await[..] else {
        panic!("there are mails");
    };
    let mut superuser = app.superuser().await;
    let changing = superuser.transaction().await.unwrap();
    let changed = vault(&old).seal(&sealed::MAIL.of(id), b"another letter").unwrap();
    changing
        .execute(
            "UPDATE mails SET sealed = $1 WHERE id = $2::text::uuid",
            &[&changed, id],
        )
        .await
        .unwrap();
    let rewrapping = sealed::rewrap(db, ring, |_, _| {});
    let done = tokio::time::timeout(Duration::from_secs(20), rewrapping).await;
    assert_eq!(done.unwrap().unwrap().values, 19);
    changing.commit().await.unwrap();
    // Two at once, as two instances: each value is taken by one of them.
    let (one, two) = tokio::join!(
        sealed::rewrap(db, ring, |_, _| {}),
        sealed::rewrap(db, ring, |_, _| {})
    );
    assert_eq!(one.unwrap().values + two.unwrap().values, 1);
    assert_eq!(kept(&app, "new").await.last(), Some(&("mails", 20)));
    let found = texts(&app).await;
    let (_, text) = found.iter().find(|(found, _)| found == id).unwrap();
    let read = vault(&new).open(&sealed::MAIL.of(id), text).unwrap();
    assert_eq!(*read, b"another letter", "the change is not lost");
}

#[tokio::test]
async fn everything_stays_readable_while_master_keys_take_over_from_each_other() {
    let (one, two) = (key("one"), key("two"));
    let url = database("sealed_to_and_fro").await;
    let with = |keys: String| Config {
        master_keys: Some(keys.into()),
        ..config()
    };
    let app = TestApp::on(url.clone(), with(format!("{one},{two}"))).await;
    let other = TestApp::on(url, with(format!("{two},{one}"))).await;
    let grace = signed_up(&app, "to_and_fro").await;
    let person = enrol(&grace).await;
    let company = secretive(&grace, "Acme", TAX_ID).await;
    mails(&app, &vault(&two), 250).await;
    let end = CancellationToken::new();
    let taking_over = async {
        let mut values = 0;
        while !end.is_cancelled() {
            for of in [&app, &other] {
                let done = sealed::rewrap(&of.app.db, &of.app.vault, |_, _| {})
                    .await
                    .unwrap();
                values += done.values;
                assert_eq!(done.unreadable, 0);
            }
        }
        values
    };
    let working = async {
        for number in 0..20 {
            let of = if number % 2 == 0 { &app } else { &other };
            let client = of.acting_as(grace.viewer().clone());
            assert_eq!(shown(&client, &company).await["taxId"], TAX_ID);
            let further = secretive(
                &client,
                &format!("Company {number}"),
                &format!("FR12345{number:02}"),
            )
            .await;
            assert_eq!(shown(&client, &further).await["bankAccount"]["iban"], IBAN);
        }
        let token = half(&other, &person.email).await;
        let verified = verify(&app, &token, &code(&person.secret, 1)).await;
        assert_eq!(outcome(&verified), "IN");
        end.cancel();
    };
    let (values, ()) = tokio::join!(taking_over, working);
    assert!(values > 250, "they took over again and again: {values}");
    let (last, only) = (
        vault(&two),
        sealed::rewrap(&other.app.db, &other.app.vault, |_, _| {}),
    );
    assert_eq!(only.await.unwrap().unreadable, 0);
    for (id, text) in texts(&app).await {
        assert_eq!(*last.open(&sealed::MAIL.of(&id), &text).unwrap(), b"a letter");
    }
}

#[tokio::test]
async fn the_command_tells_what_each_master_key_has_sealed() {
    let (old, new) = (key("old"), key("new"));
    let url = database("sealed_command").await;
    let settings = Config {
        master_keys: Some(old.clone().into()),
        ..config()
    };
    let app = TestApp::on(url.clone(), settings).await;
    let client = app.tenant().await;
    secretive(&client, "Acme", TAX_ID).await;
    let run = |command: &str| {
        let folder = crate::support::folder::Folder::new("sealed_command");
        let output = crate::support::program::dealstream(folder.path())
            .env("DATABASE_URL", &url)
            .env("JWT_SECRET", crate::support::app::SECRET)
            .env("DEALSTREAM_MASTER_KEYS", format!("{new},{old}"))
            .args(["keys", command])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = run("list");
    assert!(
        listed.contains("master key old  opens, values sealed by it: 2 (data_keys 2)"),
        "{listed}"
    );
    let rewrapped = run("rewrap");
    assert!(rewrapped.contains("current master key now: 2."), "{rewrapped}");
    let listed = run("list");
    assert!(listed.contains("signs"), "{listed}");
    assert!(
        listed.contains("master key old  opens, values sealed by it: 0"),
        "{listed}"
    );
    assert!(
        !listed.contains(&new[4..]) && !listed.contains(&old[4..]),
        "{listed}"
    );
}
