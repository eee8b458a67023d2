use super::*;

fn problems(pairs: &[(&str, &str)]) -> Vec<Problem> {
    Config::validate(&values(pairs)).expect_err("the settings are unusable")
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().fold(Values::default(), |values, (variable, text)| values.with(variable, text))
}

fn valid(pairs: &[(&str, &str)]) -> Config {
    Config::validate(&values(pairs)).expect("the settings are usable")
}

#[test]
fn without_settings_rigs_defaults_are_in_force() {
    let config = valid(&[]);
    assert_eq!((config.inbound_port, config.internal_port), (4000, Some(4010)));
    assert!(config.tls.is_none() && !config.access.is_guarded());
    assert_eq!(config.internal_host, IpAddr::from([127, 0, 0, 1]));
    assert_eq!(config.cors, Cors::Fixed("*".into()));
    assert_eq!(config.max_connections_per_minute, 5000);
    assert_eq!(config.max_subscriptions, 1000);
    assert_eq!(config.max_body_bytes, 1 << 20);
    assert_eq!(config.header_timeout_ms, 10_000);
    assert!(config.kafka.is_none(), "the hub is local without brokers");
    assert!(config.warnings.is_empty());
}

#[test]
fn by_default_no_limit_refuses_what_rig_would_take() {
    let limits = valid(&[]).limits;
    assert_eq!((limits.max_connections, limits.max_connections_per_address), (None, 0));
    assert_eq!((limits.requests_per_address, limits.requests_per_token), (0, 0));
    assert!(limits.trusted.is_empty() && !limits.proxy_protocol);
    assert_eq!(limits.origins, tidegate_shards::limits::origin::AllowedOrigins::Any);
}

#[test]
fn proxies_are_trusted_by_address_and_network() {
    let limits = valid(&[("TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::1"), ("PROXY_PROTOCOL", "true")]).limits;
    assert!(limits.proxy_protocol && limits.trusted.contains(IpAddr::from([10, 1, 2, 3])));
    assert!(!limits.trusted.contains(IpAddr::from([11, 1, 2, 3])));
}

#[test]
fn every_setting_is_in_the_operators_guide_with_its_default() {
    let guide = include_str!("../../docs/operations.md");
    let (_, section) = guide.split_once("\n## Settings\n").expect("a section on settings");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let named: Vec<_> = section.split('`').skip(1).step_by(2).collect();
    for setting in catalogue::CATALOGUE.iter().filter(|setting| !setting.variable.starts_with("TEST_")) {
        assert!(named.contains(&setting.variable), "{} is missing in docs/operations.md", setting.variable);
    }
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    for (variable, rest) in rows {
        let setting = catalogue::setting(variable).unwrap_or_else(|| panic!("docs/operations.md: no {variable}"));
        let default = rest.split(" | ").next();
        let expected = setting.default.map(|default| format!("`{default}`"));
        assert!(expected.is_none() || expected.as_deref() == default, "docs/operations.md: default of {variable}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    assert_eq!(valid(&[("INBOUND_PORT", " "), ("KAFKA_BROKERS", "")]).inbound_port, 4000);
}

#[test]
fn every_unusable_value_is_a_problem_of_its_own() {
    for (variable, text) in [
        ("INBOUND_PORT", "70000"),
        ("INBOUND_HOST", "localhost"),
        ("API_HTTP_PORT", "x"),
        ("INTERNAL_HOST", "10.0.0.1,10.0.0.2"),
        ("CORS", "a\r\nb"),
        ("DRAIN_SECONDS", "soon"),
        ("TAKEOVER", "maybe"),
        ("CORS", "https://a.example, *"),
        ("ALLOWED_ORIGINS", "shop.example"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("CLIENT_ADDRESS_HEADER", "x-real-ip"),
        ("PROXY_PROTOCOL", "true"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "x"),
        ("MAX_REQUESTS_PER_SECOND_PER_ADDRESS", "-1"),
        ("MAX_REQUESTS_PER_SECOND_PER_TOKEN", "0.5"),
        ("REQUEST_BURST_SECONDS", "0"),
        ("MAX_HTTP2_RESETS", "0"),
        ("MAX_QUEUED_BYTES_PER_SHARD", "1048576"),
        ("MIN_BODY_BYTES_PER_SECOND", "slow"),
        ("HOST", "a-label-of-more-than-sixty-three-characters-is-in-no-name-that-can-be-resolved"),
        ("SHARDS", "0"),
        ("CPUS", "7-0"),
        ("SPIN", "-1"),
        ("EXTRACTORS", "/no/such/file"),
        ("STRICT_CONSTRAINTS", "maybe"),
        ("MAX_SUBSCRIPTIONS", "0"),
        ("HISTORY_BYTES", "1e6"),
        ("SNAPSHOT_TOPICS", "rig,other"),
        ("SNAPSHOT_BYTES", "x"),
        ("KAFKA_BROKERS", "kafka:port"),
        ("KAFKA_SOURCE_TOPICS", "a b"),
        ("KAFKA_SOURCE_TOPICS", ","),
        ("KAFKA_SASL", "plain:user"),
        ("KAFKA_SASL", "gssapi:user:password"),
        ("KAFKA_SSL_ENABLED", "on"),
        ("KAFKA_UNREACHABLE_SECONDS", "0"),
        ("KAFKA_RESTART_DELAY_MS", "abc"),
        ("KAFKA_SERIALIZER", "protobuf"),
        ("KAFKA_SERIALIZER", "avro"),
        ("KAFKA_SCHEMA_REGISTRY_HOST", "a b"),
        ("NODES_TOPIC", "a b"),
        ("NODE_ADDRESS", "10.0.0.7:x"),
        ("NODE_PORT", "x"),
        ("MAX_CONNECTIONS_PER_MINUTE", "abc"),
        ("MAX_QUEUE_BYTES", "2048"),
        ("SLOW_CLIENT", "drop,wait"),
        ("SLOW_CLIENT", ","),
        ("MAX_BODY_BYTES", "0"),
        ("MAX_EVENT_BYTES", "0"),
        ("MAX_MESSAGE_BYTES", "0"),
        ("HEADER_TIMEOUT_MS", "0"),
        ("HEARTBEAT_MS", "0"),
        ("LONG_POLLING_WAIT_MS", "x"),
        ("LONG_POLLING_SESSION_MS", "x"),
        ("JWT_ALG", "FOO"),
        ("JWT_SESSION_FIELD", "jti"),
        ("SUBSCRIPTION_CHECK", "sometimes"),
        ("SUBMISSION_CHECK", "sometimes"),
        ("AUTO_SUBSCRIPTIONS", "both"),
        ("END_AT_TOKEN_EXPIRY", "never"),
        ("SESSIONS_TOPIC", "a b"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FMT", "foo"),
        ("PROMETHEUS_METRICS_ENABLED", "x"),
        ("REQUEST_LOG", "foo"),
        ("JAEGER_PORT", "x"),
        ("PROXY_RECV_TIMEOUT", "abc"),
        ("PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", "abc"),
        ("PROXY_KAFKA_RESPONSE_TIMEOUT", "abc"),
        ("PROXY_KINESIS_RESPONSE_TIMEOUT", "abc"),
        ("PROXY_NATS_RESPONSE_TIMEOUT", "abc"),
        ("INBOUND_HTTPS_PORT", "x"),
        ("API_HTTPS_PORT", "x"),
        ("HTTPS_CERTFILE", "cert.pem"),
        ("HTTPS_KEYFILE", "key.pem"),
        ("HTTPS_KEYFILE_PASS", "open sesame"),
        ("HTTPS_RELOAD_SECONDS", "x"),
        ("HTTPS_HANDSHAKE_TIMEOUT_MS", "0"),
        ("HTTPS_MAX_HANDSHAKES", "0"),
        ("INTERNAL_CLIENT_CA", "ca.pem"),
        ("INTERNAL_TOKEN", "short"),
        ("INTERNAL_TOKEN", "sixteen letters and ä"),
        ("INTERNAL_HEALTH_OPEN", "x"),
        ("API_HTTP_PORT", "off"),
        ("KINESIS_ENABLED", "x"),
        ("TEST_ECHO_ENDPOINT", "x"),
    ] {
        let found = problems(&[(variable, text)]);
        assert_eq!(found.len(), 1, "{variable}={text}: {found:?}");
        assert_eq!(found[0].variable, variable);
        assert!(!found[0].wrong.is_empty() && !found[0].remedy.is_empty());
    }
}

#[test]
fn all_problems_are_listed_together() {
    let found = problems(&[("INBOUND_PORT", "x"), ("LOG_FMT", "y"), ("KAFKA_SASL", "z"), ("HTTPS_CERTFILE", "c.pem")]);
    let variables: Vec<_> = found.iter().map(|problem| problem.variable).collect();
    assert_eq!(variables.len(), 4);
    for variable in ["INBOUND_PORT", "LOG_FMT", "KAFKA_SASL", "HTTPS_CERTFILE"] {
        assert!(variables.contains(&variable), "{variable} is missing in {variables:?}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    let found = problems(&[("KAFKA_SASL", "plain:hunter2"), ("JWT_ALG", "RS256"), ("JWT_SECRET_KEY", "hunter2")]);
    let shown = found.iter().map(ToString::to_string).collect::<String>();
    assert_eq!(found.len(), 2);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!format!("{:?}", values(&[("NODE_COOKIE", "hunter2")])).contains("hunter2"));
}

#[test]
fn checks_are_words_in_any_case_or_urls() {
    for variable in ["SUBSCRIPTION_CHECK", "SUBMISSION_CHECK"] {
        for text in ["JWT_validation", "http://auth.example/Check"] {
            valid(&[(variable, text)]);
        }
        assert_eq!(problems(&[(variable, "ftp://auth.example")])[0].variable, variable);
    }
    assert!(valid(&[("SUBMISSION_CHECK", "NO_CHECK")]).warnings.is_empty());
}

#[test]
fn tls_needs_certificate_and_key_and_every_file_that_is_missing_is_named() {
    let found = problems(&[("HTTPS_CERTFILE", "cert.pem")]);
    assert!(found[0].to_string().contains("Please also set HTTPS_KEYFILE to enable HTTPS."), "{}", found[0]);
    let found = problems(&[("HTTPS_CERTFILE", "/nope"), ("HTTPS_KEYFILE", "/neither")]);
    assert_eq!(found.iter().map(|problem| problem.variable).collect::<Vec<_>>(), ["HTTPS_CERTFILE", "HTTPS_KEYFILE"]);
    assert!(found[0].to_string().contains("Could not resolve HTTPS_CERTFILE: \"/nope\""), "{}", found[0]);
    let found = problems(&[("HTTPS_CERTFILE", "a,b,c"), ("HTTPS_KEYFILE", "a,b")]);
    assert!(found[0].wrong.contains("2 keys for 3 certificates"));
}

#[test]
fn an_internal_port_that_the_network_can_reach_without_control_is_warned_of() {
    let warnings = |pairs: &[(&str, &str)]| valid(pairs).warnings;
    assert!(warnings(&[("INTERNAL_HOST", "0.0.0.0")])[0].contains("INTERNAL_TOKEN or INTERNAL_CLIENT_CA"));
    let token = ("INTERNAL_TOKEN", "correct-horse-battery");
    assert!(warnings(&[("INTERNAL_HOST", "::"), token])[0].contains("unencrypted"));
    assert!(warnings(&[token]).is_empty());
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_refused_with_its_reason() {
    let pem = include_str!("../../tests/data/keys/rsa.pem");
    let key = ("JWT_SECRET_KEY", pem);
    assert_eq!(valid(&[key, ("JWT_ALG", "RS256,PS256")]).tokens.settings.issuers.len(), 1);
    assert!(problems(&[key])[0].wrong.contains("a public key"), "everybody knows it, so it is no secret");
    assert_eq!(problems(&[key, ("JWT_ALG", "ES256")])[0].variable, "JWT_SECRET_KEY");
    assert_eq!(problems(&[("JWT_SECRET_KEY", "x"), ("JWT_ALG", "RS256")])[0].variable, "JWT_SECRET_KEY");
    assert!(problems(&[key, ("JWT_ALG", "ES512")])[0].wrong.contains("P-521"));
    assert_eq!(problems(&[("JWT_KEY_FILES", "/no/such.pem")])[0].variable, "JWT_KEY_FILES");
    assert_eq!(problems(&[("JWT_JWKS", "/no/such.json")])[0].variable, "JWT_JWKS");
    for issuers in
        ["{}", r#"[{"issuer":"a"}]"#, r#"[{"secret":"a","sceret":"b"}]"#, r#"[{"secret":"a","algorithms":"FOO"}]"#]
    {
        assert_eq!(problems(&[("JWT_ISSUERS", issuers)])[0].variable, "JWT_ISSUERS", "{issuers}");
    }
    let two = r#"[{"issuer":"a","audience":"x","secret":"s"},{"issuer":"b","jwks":"http://id.example/keys"}]"#;
    for (issuers, told) in [(r#"["hunter2"]"#, "column"), (r#"[{"secret":"hunter2","sceret":"a"}]"#, "`sceret`")] {
        let text = problems(&[("JWT_ISSUERS", issuers)])[0].to_string();
        assert!(text.contains(told) && !text.contains("hunter2"), "{text}");
    }
    let config = valid(&[("JWT_ISSUERS", two)]);
    assert_eq!((config.tokens.settings.issuers.len(), config.tokens.remote.len()), (2, 1));
}

#[test]
fn the_default_algorithm_is_the_secrets_alone() {
    let files = ["rsa", "p384"].map(|name| format!("{}/tests/data/keys/{name}.pem", env!("CARGO_MANIFEST_DIR")));
    let (secret, files) = (("JWT_SECRET_KEY", "a secret of more than thirty-two bytes"), files.join(","));
    let files = ("JWT_KEY_FILES", files.as_str());
    let algorithms = |settings: &[(&str, &str)]| -> Vec<String> {
        let issuers = valid(settings).tokens.settings.issuers;
        issuers.iter().flat_map(|issuer| &*issuer.keys).map(|key| format!("{:?}", key.algorithms())).collect()
    };
    assert_eq!(algorithms(&[secret, files]), ["{Hs256}", "{Rs256}", "{Es384}"]);
    assert_eq!(algorithms(&[secret, files, ("JWT_ALG", "HS512,PS256,ES384")]), ["{Hs512}", "{Ps256}", "{Es384}"]);
    assert_eq!(problems(&[files, ("JWT_ALG", "RS256")])[0].variable, "JWT_KEY_FILES", "what is named is for all keys");
}

#[test]
fn wrong_api_definitions_refuse_the_start_each_error_by_itself() {
    assert!(valid(&[("PROXY_CONFIG_FILE", "[]")]).proxy.definitions.is_empty());
    let found = problems(&[("PROXY_CONFIG_FILE", r#"[{"id":"x"}]"#)]);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|problem| problem.variable == "PROXY_CONFIG_FILE"));
}

#[test]
fn of_a_long_value_only_the_beginning_is_shown() {
    let found = problems(&[("PROXY_CONFIG_FILE", &format!("[{}", "ä".repeat(1_000)))]);
    let shown = found[0].to_string();
    assert!(shown.contains("[ää") && shown.contains('…') && shown.len() < 1_000, "{shown}");
}

#[test]
fn parts_of_later_versions_give_one_warning_each() {
    let config = valid(&[("NATS_SERVERS", "nats:4222"), ("NATS_SOURCE_TOPICS", "a"), ("KINESIS_ENABLED", "true")]);
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("NATS_SERVERS, NATS_SOURCE_TOPICS"));
}

#[test]
fn erlangs_variables_are_accepted_with_what_replaces_them() {
    let config = valid(&[("KAFKATOFILTER_KAFKA_GROUP_ID", "kafka-to-filter"), ("DISCOVERY_TYPE", "dns")]);
    assert_eq!(config.warnings.len(), 2);
    assert!(config.warnings.iter().any(|warning| warning.contains("without a consumer group")));
}

#[test]
fn sasl_keeps_colons_of_the_password() {
    let config = valid(&[("KAFKA_BROKERS", "kafka:9092"), ("KAFKA_SASL", "scram-sha-512:user:pass:word")]);
    let sasl = config.kafka.and_then(|kafka| kafka.sasl).expect("a login");
    assert_eq!(
        (sasl.mechanism, sasl.user.as_str(), sasl.password.as_str()),
        (SaslMechanism::ScramSha512, "user", "pass:word")
    );
}

#[test]
fn lists_are_trimmed_and_topics_counted_once() {
    let kafka = valid(&[("KAFKA_BROKERS", "a:1, [::1]:2 ,"), ("KAFKA_SOURCE_TOPICS", "x, y,x")]).kafka.expect("Kafka");
    assert_eq!(kafka.brokers, ["a:1", "[::1]:2"]);
    assert_eq!(kafka.source_topics, ["x", "y"]);
}

#[test]
fn a_client_certificate_needs_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("client.pem");
    std::fs::write(&path, "x").expect("a file");
    let path = path.to_string_lossy().into_owned();
    let found =
        problems(&[("KAFKA_BROKERS", "kafka:9093"), ("KAFKA_SSL_ENABLED", "1"), ("KAFKA_SSL_CERTFILE", path.as_str())]);
    assert_eq!(found[0].variable, "KAFKA_SSL_KEYFILE");
    let found = problems(&[("KAFKA_BROKERS", "k:1"), ("KAFKA_SSL_ENABLED", "1"), ("KAFKA_SSL_CA_CERTFILE", "/no/ca")]);
    assert_eq!(found[0].variable, "KAFKA_SSL_CA_CERTFILE");
}

#[test]
fn extractors_may_be_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("extractors.json");
    let json = r#"{"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"}}}}"#;
    std::fs::write(&path, json).expect("a file");
    for text in [json, &path.to_string_lossy()] {
        let config = valid(&[("EXTRACTORS", text)]);
        assert!(config.extractors.for_type("greeting").is_some(), "from {text}");
    }
}
