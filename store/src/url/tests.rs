use super::*;

const CLEAR: &[Step] = &[Step::Disable];
const TLS: &[Step] = &[Step::Require];
const CLEAR_THEN_TLS: &[Step] = &[Step::Disable, Step::Require];
const TLS_THEN_CLEAR: &[Step] = &[Step::Prefer, Step::Disable];

fn parse(url: &str) -> Result<DatabaseUrl, Error> {
    DatabaseUrl::parse_in(&SecretString::from(url), &Environment::default())
}

fn steps(url: &str) -> &'static [Step] {
    let parsed = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    parsed.servers[0].steps
}

#[test]
fn each_mode_means_what_libpq_says_and_no_password_leaves_in_the_clear() {
    let here = "postgres://u:p@127.0.0.1/d?sslmode=";
    let trusted = "postgres://u@db.example.com/d?sslmode=";
    let remote = "postgres://u:p@db.example.com/d?sslmode=";
    for (mode, with_fallback, guarded) in [
        ("disable", CLEAR, None),
        ("allow", CLEAR_THEN_TLS, Some(TLS)),
        ("prefer", TLS_THEN_CLEAR, Some(TLS)),
        ("require", TLS, Some(TLS)),
        ("verify-ca", TLS, Some(TLS)),
        ("verify-full", TLS, Some(TLS)),
    ] {
        assert_eq!(steps(&format!("{here}{mode}")), with_fallback, "{mode}");
        // Without a password there is nothing to guard.
        assert_eq!(steps(&format!("{trusted}{mode}")), with_fallback, "{mode}");
        let allowed = format!("{remote}{mode}&allow_cleartext=true");
        assert_eq!(steps(&allowed), with_fallback, "{mode}");
        match (parse(&format!("{remote}{mode}")), guarded) {
            (Ok(parsed), Some(steps)) => assert_eq!(parsed.servers[0].steps, steps, "{mode}"),
            (Err(Error::Cleartext), None) => {}
            (other, _) => panic!("{mode}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn without_a_mode_this_machine_may_do_without_tls_and_others_may_not() {
    for (url, expected) in [
        ("postgres://u:p@localhost/d", TLS_THEN_CLEAR),
        ("postgres://u:p@127.1.2.3/d", TLS_THEN_CLEAR),
        ("postgres://u:p@[::1]/d", TLS_THEN_CLEAR),
        ("postgres://u:p@%2Frun%2Fpostgresql/d", CLEAR),
        (
            "postgres://u:p@/d?host=/run/postgresql&sslmode=require",
            CLEAR,
        ),
        ("postgres://u:p@db/d", TLS),
        ("postgres://u@db/d", TLS),
        ("postgres://u:p@192.0.2.1/d", TLS),
        ("postgres://u:p@localhost/d?hostaddr=192.0.2.1", TLS),
        ("postgres://u:p@db/d?hostaddr=127.0.0.1", TLS_THEN_CLEAR),
    ] {
        assert_eq!(steps(url), expected, "{url}");
    }
    let allowed = allow_cleartext(&SecretString::from("postgres://u:p@db/d"));
    assert_eq!(steps(allowed.expose_secret()), TLS_THEN_CLEAR);
}

#[test]
fn what_is_not_supported_is_named_and_nothing_else_is_shown() {
    for (query, named) in [
        ("schema=hunter2", "schema"),
        ("sslcrl=hunter2", "sslcrl"),
        ("service=hunter2", "service"),
        ("require_auth=hunter2", "require_auth"),
        ("sslnegotiation=direct", "sslnegotiation"),
        ("gssencmode=require", "gssencmode"),
        ("sslmode=hunter2", "sslmode"),
        ("target_session_attrs=standby", "target_session_attrs"),
        ("load_balance_hosts=hunter2", "load_balance_hosts"),
        ("channel_binding=hunter2", "channel_binding"),
        ("channel_binding=require", "channel_binding"),
        ("connect_timeout=hunter2", "connect_timeout"),
        ("keepalives_idle=hunter2", "keepalives_idle"),
        ("port=hunter2", "port"),
        ("hostaddr=hunter2", "hostaddr"),
        ("sslkey=/hunter", "sslkey"),
        ("sslrootcert=/no/such/file", "sslrootcert"),
        ("passfile=/no/such/file", "passfile"),
        ("sslrootcert=system&sslmode=require", "verify-full"),
        ("host=a,b&port=1,2,3", "3 values of port"),
    ] {
        let url = format!("postgres://u@127.0.0.1/d?{query}");
        let error = parse(&url)
            .err()
            .unwrap_or_else(|| panic!("{query}"))
            .to_string();
        assert!(
            error.contains(named) && !error.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn what_happens_anyway_may_be_asked_for() {
    let url = "postgres://u@127.0.0.1/d?client_encoding=UTF8&gssencmode=disable&sslsni=1\
               &sslcompression=0&ssl_min_protocol_version=TLSv1.2&ssl=true";
    assert_eq!(steps(url), TLS);
}

#[test]
fn several_hosts_have_their_ports_passwords_and_a_short_time_each() {
    let directory = std::env::temp_dir().join(format!("voice-otp-{}", uuid::Uuid::new_v4()));
    std::fs::write(&directory, "a:1:d:u:one\nb:2:d:u:two\n").unwrap();
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&directory, own).unwrap();
    let url = format!(
        "postgres://u@a:1,b:2/d?passfile={}&load_balance_hosts=random",
        directory.display()
    );
    let parsed = parse(&url).unwrap();
    std::fs::remove_file(&directory).unwrap();
    let seen: Vec<_> = parsed
        .servers
        .iter()
        .map(|server| (server.port, server.config.get_password()))
        .collect();
    assert_eq!(seen, [(1, Some(&b"one"[..])), (2, Some(&b"two"[..]))]);
    assert!(parsed.shuffle);
    assert_eq!(parsed.connect_timeout, Duration::from_secs(2));
    let config = &parsed.servers[0].config;
    assert_eq!(
        config.get_target_session_attrs(),
        TargetSessionAttrs::ReadWrite
    );
    let one = parse("postgres://u@a/d").unwrap();
    assert_eq!(one.connect_timeout, Duration::from_secs(5));
}

#[test]
fn settings_of_the_session_and_the_socket_are_taken() {
    let url = "postgres://u:p@127.0.0.1:6432/d?application_name=me&options=-c%20a%3Db\
               &connect_timeout=7&keepalives_idle=1&keepalives_interval=2&keepalives_count=4\
               &tcp_user_timeout=1500&channel_binding=disable&target_session_attrs=any";
    let parsed = parse(url).unwrap();
    let server = &parsed.servers[0];
    let config = &server.config;
    assert_eq!(server.port, 6432);
    assert_eq!(config.get_application_name(), Some("me"));
    assert_eq!(config.get_options(), Some("-c a=b"));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(1));
    assert_eq!(
        config.get_keepalives_interval(),
        Some(Duration::from_secs(2))
    );
    assert_eq!(config.get_keepalives_retries(), Some(4));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(1500))
    );
    assert_eq!(config.get_channel_binding(), ChannelBinding::Disable);
    assert_eq!(parsed.connect_timeout, Duration::from_secs(7));
    let plain = parse("postgres://u:p@127.0.0.1/d").unwrap();
    let config = &plain.servers[0].config;
    assert_eq!(config.get_application_name(), Some("voice-otp"));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_secs(10))
    );
}

#[test]
fn a_password_of_the_environment_counts_where_the_url_has_none() {
    let environment = Environment {
        password: Some("from-environment".into()),
        ..Environment::default()
    };
    let password = |url: &str| {
        let parsed = DatabaseUrl::parse_in(&SecretString::from(url), &environment).unwrap();
        let password = parsed.servers[0].config.get_password().map(<[u8]>::to_vec);
        (
            String::from_utf8(password.unwrap()).unwrap(),
            parsed.servers[0].steps,
        )
    };
    assert_eq!(
        password("postgres://u@db/d?sslmode=prefer"),
        ("from-environment".to_owned(), TLS)
    );
    assert_eq!(password("postgres://u:own@db/d").0, "own");
}
