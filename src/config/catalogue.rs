//! The catalogue of settings: RIG's, under their own names and with their defaults, and Tidegate's.

/// How a setting is given on the command line, and whether it may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag` or `--flag=false`.
    Switch,
    /// `--flag` or `--flag=VALUE`; holds the name of the value, and the value of the bare flag.
    Amount(&'static str, &'static str),
    /// `--flag VALUE`; holds the name of the value.
    Text(&'static str),
    /// Like text, but never printed.
    Secret(&'static str),
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Heading it stands under in `--help`.
    pub heading: &'static str,
    /// Environment variable; the flag is the same in kebab case.
    pub variable: &'static str,
    /// How it is given.
    pub kind: Kind,
    /// Its default.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
    /// Left out of `--help`.
    pub hidden: bool,
}

impl Setting {
    /// The flag without its dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.variable.to_ascii_lowercase().replace('_', "-")
    }
}

/// The setting with this variable.
#[must_use]
pub fn setting(variable: &str) -> Option<&'static Setting> {
    CATALOGUE.iter().find(|setting| setting.variable == variable)
}

const LISTENERS: &str = "Listening";
const CORES: &str = "Cores";
const EVENTS: &str = "Events and subscriptions";
const KAFKA: &str = "Kafka";
const LIMITS: &str = "Limits and timeouts";
const TOKENS: &str = "Tokens and checks";
const LOGS: &str = "Logs, metrics and health";
const PROXY: &str = "API proxy";
const OTHER: &str = "Other sources";
const ERLANG: &str = "Erlang";

const fn text(
    heading: &'static str,
    variable: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        heading,
        variable,
        kind: Kind::Text(value_name),
        default: if default.is_empty() { None } else { Some(default) },
        help,
        hidden: false,
    }
}

const fn secret(
    heading: &'static str,
    variable: &'static str,
    value_name: &'static str,
    help: &'static str,
) -> Setting {
    Setting { heading, variable, kind: Kind::Secret(value_name), default: None, help, hidden: false }
}

const fn switch(heading: &'static str, variable: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { heading, variable, kind: Kind::Switch, default: Some(default), help, hidden: false }
}

const fn hidden(setting: Setting) -> Setting {
    Setting { hidden: true, ..setting }
}

const fn erlang(variable: &'static str, help: &'static str) -> Setting {
    hidden(text(ERLANG, variable, "TEXT", "", help))
}

/// Every setting, in the order of `--help`.
pub const CATALOGUE: &[Setting] = &[
    text(LISTENERS, "INBOUND_PORT", "PORT", "4000", "Port for clients; 0 takes a free one"),
    text(
        LISTENERS,
        "INBOUND_HOST",
        "IP,…",
        "::",
        "Addresses to listen on for clients; `::` means all of them, IPv4 too",
    ),
    text(LISTENERS, "API_HTTP_PORT", "PORT", "4010", "Internal port: health, metrics, publishing without checks"),
    text(
        LISTENERS,
        "INTERNAL_HOST",
        "IP",
        "127.0.0.1",
        "Address of the internal port; it has no access control, so open it to trusted networks only",
    ),
    text(
        LISTENERS,
        "DRAIN_SECONDS",
        "SECONDS",
        "30",
        "Time over which clients are moved away after SIGTERM; 0 ends their connections at once",
    ),
    switch(
        LISTENERS,
        "TAKEOVER",
        "false",
        "Listen although another gateway of the same user does: it is to be stopped then, and drains",
    ),
    text(LISTENERS, "HOST", "NAME", "", "Name or address of this node as others see it"),
    text(
        LISTENERS,
        "CORS",
        "ORIGIN,…",
        "*",
        "Value of access-control-allow-origin on Tidegate's own answers; of several, the one that asks",
    ),
    text(
        LISTENERS,
        "ALLOWED_ORIGINS",
        "ORIGIN,…",
        "",
        "Web sites whose pages may open WebSockets, e.g. https://shop.example [default: all]",
    ),
    text(
        LISTENERS,
        "TRUSTED_PROXIES",
        "CIDR,…",
        "",
        "Addresses that are believed when they say whom they speak for, e.g. 10.0.0.0/8 [default: none]",
    ),
    text(
        LISTENERS,
        "CLIENT_ADDRESS_HEADER",
        "NAME",
        "x-forwarded-for",
        "Where TRUSTED_PROXIES name the client: x-forwarded-for or forwarded",
    ),
    switch(
        LISTENERS,
        "PROXY_PROTOCOL",
        "false",
        "Connections from TRUSTED_PROXIES begin with a header of the PROXY protocol, version 1 or 2",
    ),
    text(LISTENERS, "INBOUND_HTTPS_PORT", "PORT", "4001", "TLS port for clients"),
    text(LISTENERS, "API_HTTPS_PORT", "PORT", "4011", "TLS port of the internal API"),
    text(LISTENERS, "HTTPS_CERTFILE", "PATH", "", "Certificate chain for the TLS ports (PEM)"),
    text(LISTENERS, "HTTPS_KEYFILE", "PATH", "", "Private key for the TLS ports (PEM)"),
    secret(LISTENERS, "HTTPS_KEYFILE_PASS", "TEXT", "Passphrase of HTTPS_KEYFILE"),
    text(CORES, "SHARDS", "COUNT", "", "Shards, one core each [default: the usable cores less one, at least 1]"),
    text(CORES, "CPUS", "LIST", "", "Cores for the shards, e.g. 0-7,16-23 [default: all allowed, hyper-threads last]"),
    Setting {
        heading: CORES,
        variable: "SPIN",
        kind: Kind::Amount("MICROS", "1000"),
        default: Some("0"),
        help: "Spin this long before a shard sleeps (bare: 1000): lower latency, a busy core",
        hidden: false,
    },
    text(EVENTS, "EXTRACTORS", "JSON|PATH", "", "Extractor configuration: which fields can be filtered on"),
    switch(
        EVENTS,
        "STRICT_CONSTRAINTS",
        "false",
        "Refuse constraints on fields without an extractor instead of ignoring them",
    ),
    text(EVENTS, "MAX_SUBSCRIPTIONS", "COUNT", "1000", "Subscriptions that one connection may hold"),
    text(EVENTS, "HISTORY_BYTES", "BYTES", "67108864", "Memory for recent events, from which clients catch up"),
    switch(
        EVENTS,
        "REPLAY_EARLIEST",
        "false",
        "Clients may ask for all events there are, or for those since a time, in place of a cursor",
    ),
    text(KAFKA, "KAFKA_BROKERS", "HOST:PORT,…", "", "Kafka brokers [default: none, the hub is local to this process]"),
    text(
        KAFKA,
        "KAFKA_SOURCE_TOPICS",
        "TOPIC,…",
        "rig",
        "Topics to read events from; published events go to the first",
    ),
    secret(
        KAFKA,
        "KAFKA_SASL",
        "MECHANISM:USER:PASSWORD",
        "SASL login; mechanisms: plain, scram-sha-256, scram-sha-512",
    ),
    switch(KAFKA, "KAFKA_SSL_ENABLED", "false", "Connect with TLS"),
    text(KAFKA, "KAFKA_SSL_CA_CERTFILE", "PATH", "ca.crt.pem", "Certificate authority of the brokers"),
    text(KAFKA, "KAFKA_SSL_CERTFILE", "PATH", "client.crt.pem", "Client certificate; used if the file exists"),
    text(
        KAFKA,
        "KAFKA_SSL_KEYFILE",
        "PATH",
        "client.key.pem",
        "Key of the client certificate; used if the file exists",
    ),
    secret(KAFKA, "KAFKA_SSL_KEYFILE_PASS", "TEXT", "Passphrase of KAFKA_SSL_KEYFILE"),
    text(
        KAFKA,
        "KAFKA_UNREACHABLE_SECONDS",
        "SECONDS",
        "30",
        "/health turns to 503 after Kafka was out of reach this long",
    ),
    text(KAFKA, "KAFKA_RESTART_DELAY_MS", "MS", "1000", "Longest pause between two attempts to reach a broker"),
    text(KAFKA, "KAFKA_SERIALIZER", "FORMAT", "", "Serialisation of produced events: avro"),
    text(KAFKA, "KAFKA_SCHEMA_REGISTRY_HOST", "HOST:PORT", "", "Schema registry for Avro"),
    text(
        KAFKA,
        "NODES_TOPIC",
        "TOPIC",
        "tidegate.nodes",
        "Compacted topic in which nodes with the same NODE_COOKIE find each other",
    ),
    text(
        KAFKA,
        "NODE_ADDRESS",
        "HOST[:PORT]",
        "",
        "Where other nodes reach NODE_PORT [default: HOST, or INTERNAL_HOST]",
    ),
    text(KAFKA, "NODE_PORT", "PORT", "0", "Port on INTERNAL_HOST for calls of other nodes; 0 takes a free one"),
    text(KAFKA, "KAFKA_LOG_TOPIC", "TOPIC", "rig-request-log", "Topic of the request log"),
    text(KAFKA, "KAFKA_LOG_SCHEMA", "SUBJECT", "", "Avro schema of the request log"),
    text(
        LIMITS,
        "MAX_CONNECTIONS",
        "COUNT",
        "",
        "Connections, long-polling sessions and HTTP/2 event streams on this node [default: 15/16 of the limit of open files]",
    ),
    text(LIMITS, "MAX_CONNECTIONS_PER_ADDRESS", "COUNT", "0", "As many of them for one address; 0 for no limit"),
    text(LIMITS, "MAX_CONNECTIONS_PER_MINUTE", "COUNT", "5000", "New connections a minute on this node"),
    text(
        LIMITS,
        "MAX_REQUESTS_PER_SECOND_PER_ADDRESS",
        "COUNT",
        "0",
        "Requests from one address to publish and to the API proxy, on each shard; 0 for no limit",
    ),
    text(
        LIMITS,
        "MAX_REQUESTS_PER_SECOND_PER_TOKEN",
        "COUNT",
        "0",
        "The same with one token, from whatever address; 0 for no limit",
    ),
    text(LIMITS, "REQUEST_BURST_SECONDS", "SECONDS", "5", "How many seconds' worth of these requests may come at once"),
    text(
        LIMITS,
        "MAX_HTTP2_RESETS",
        "COUNT",
        "1000",
        "Unanswered requests that an HTTP/2 connection may take back in a minute before it is closed",
    ),
    text(
        LIMITS,
        "MAX_QUEUE_BYTES",
        "BYTES",
        "2097152",
        "Bytes that may wait for a slow client before SLOW_CLIENT says what happens",
    ),
    text(
        LIMITS,
        "SLOW_CLIENT",
        "POLICY,…",
        "disconnect",
        "Slow clients: disconnect, drop (events, with a notice) or conflate (newest per subject); clients may ask for the later ones",
    ),
    text(
        LIMITS,
        "MAX_QUEUED_BYTES_PER_SHARD",
        "BYTES",
        "268435456",
        "Bytes that may wait for all clients of a shard; beyond, the slowest are disconnected",
    ),
    text(LIMITS, "MAX_BODY_BYTES", "BYTES", "1048576", "Largest request body on Tidegate's own calls"),
    text(
        LIMITS,
        "MAX_EVENT_BYTES",
        "BYTES",
        "1048576",
        "Largest event taken from Kafka for clients; larger ones are counted and skipped",
    ),
    text(LIMITS, "MAX_MESSAGE_BYTES", "BYTES", "65536", "Largest WebSocket message from a client"),
    text(
        LIMITS,
        "HEADER_TIMEOUT_MS",
        "MS",
        "10000",
        "Time for a client to send its request head, and to keep an idle connection",
    ),
    text(
        LIMITS,
        "MIN_BODY_BYTES_PER_SECOND",
        "BYTES",
        "500",
        "Slowest average of a request body, once its first silence is over; 0 for as slow as it likes",
    ),
    text(LIMITS, "HEARTBEAT_MS", "MS", "15000", "Time between two heartbeats on a connection"),
    text(LIMITS, "LONG_POLLING_WAIT_MS", "MS", "5000", "Longest wait of a long-polling call for its first event"),
    text(LIMITS, "LONG_POLLING_SESSION_MS", "MS", "3600000", "Life of a long-polling session after its last call"),
    secret(TOKENS, "JWT_SECRET_KEY", "KEY", "Secret, or PEM public key, that tokens are verified with"),
    text(
        TOKENS,
        "JWT_ALG",
        "ALGORITHM,…",
        "HS256",
        "What the keys are for: HS256 to HS512, RS256 to RS512, PS256 to PS512, ES256, ES384, EdDSA",
    ),
    text(
        TOKENS,
        "JWT_KEY_FILES",
        "PATH,…",
        "",
        "PEM files with public keys or certificates that tokens are verified with",
    ),
    text(TOKENS, "JWT_JWKS", "PATH|URL", "", "JSON Web Key Set that tokens are verified with"),
    text(TOKENS, "JWT_JWKS_REFRESH_SECONDS", "SECONDS", "300", "Time between two looks at key sets behind URLs"),
    text(TOKENS, "JWT_ISSUER", "TEXT", "", "`iss` that tokens must have [default: any]"),
    text(TOKENS, "JWT_AUDIENCE", "TEXT,…", "", "`aud` of tokens must hold one of these [default: any]"),
    text(TOKENS, "JWT_ISSUERS", "JSON|PATH", "", "More issuers, each with its own keys, algorithms and audience"),
    text(TOKENS, "JWT_LEEWAY_SECONDS", "SECONDS", "0", "How far clocks may differ, for `exp` and `nbf`"),
    text(TOKENS, "JWT_CACHE_BYTES", "BYTES", "33554432", "Memory for tokens that have been verified"),
    text(TOKENS, "JWT_COOKIE", "NAME", "", "Cookie that holds a token [default: none]"),
    text(
        TOKENS,
        "CHECK_TIMEOUT_MS",
        "MS",
        "5000",
        "Time for a URL of SUBSCRIPTION_CHECK or SUBMISSION_CHECK to answer",
    ),
    text(TOKENS, "CHECK_CACHE_MS", "MS", "0", "How long its answer counts for the same question; 0 asks every time"),
    text(TOKENS, "JWT_SESSION_FIELD", "POINTER", "/jti", "JSON pointer to the session in a token's claims"),
    text(
        TOKENS,
        "SUBSCRIPTION_CHECK",
        "CHECK",
        "no_check",
        "Who may subscribe: no_check, jwt_validation or a URL to ask",
    ),
    text(TOKENS, "SUBMISSION_CHECK", "CHECK", "no_check", "Who may publish: no_check, jwt_validation or a URL to ask"),
    text(
        TOKENS,
        "AUTO_SUBSCRIPTIONS",
        "MODE",
        "unite",
        "Subscriptions from claims and from clients: unite, or restrict",
    ),
    switch(
        TOKENS,
        "END_AT_TOKEN_EXPIRY",
        "true",
        "A connection ends when its token expires, unless a fresh one came with a PUT",
    ),
    text(
        TOKENS,
        "SESSIONS_TOPIC",
        "TOPIC",
        "tidegate.sessions",
        "Compacted topic of blacklisted sessions, where there is Kafka; nodes that share it share them",
    ),
    secret(
        TOKENS,
        "NODE_COOKIE",
        "TEXT",
        "Key of connection tokens and correlation ids; nodes behind one address share it [default: random at each start]",
    ),
    text(LOGS, "LOG_LEVEL", "LEVEL", "warn", "error, warn, info, debug or none"),
    text(LOGS, "LOG_FMT", "FORMAT", "", "json or gcl [default: text for people]"),
    switch(LOGS, "PROMETHEUS_METRICS_ENABLED", "true", "Serve /metrics on the internal port"),
    text(LOGS, "REQUEST_LOG", "SINK,…", "", "Log calls of the API proxy: console, kafka"),
    text(LOGS, "JAEGER_HOST", "HOST", "", "Jaeger collector for traces"),
    text(LOGS, "JAEGER_PORT", "PORT", "6831", "Port of the Jaeger collector"),
    text(LOGS, "JAEGER_SERVICE_NAME", "NAME", "rig", "Service name in Jaeger"),
    text(LOGS, "ZIPKIN_ADDR", "URL", "", "Zipkin collector for traces"),
    text(LOGS, "ZIPKIN_SERVICE_NAME", "NAME", "rig", "Service name in Zipkin"),
    text(
        PROXY,
        "PROXY_CONFIG_FILE",
        "JSON|PATH",
        "",
        "API definitions of the start; a change made over the internal port and stored wins over the same id in here",
    ),
    text(
        PROXY,
        "PROXY_APIS_TOPIC",
        "TOPIC",
        "tidegate.apis",
        "Compacted topic of API definitions made over the internal port, where there is Kafka; nodes that share it share them",
    ),
    text(
        PROXY,
        "STATE_DIR",
        "PATH",
        "",
        "Folder for API definitions made over the internal port, and for blacklisted sessions, without Kafka",
    ),
    text(PROXY, "PROXY_CONNECT_TIMEOUT", "MS", "5000", "Time to connect to a backend, TLS included"),
    text(PROXY, "PROXY_RECV_TIMEOUT", "MS", "5000", "Time for a backend to begin its answer"),
    text(PROXY, "PROXY_IDLE_TIMEOUT", "MS", "60000", "Time between two pieces of a body, either way"),
    text(PROXY, "PROXY_KEEP_ALIVE", "MS", "30000", "Life of an unused connection to a backend"),
    text(PROXY, "PROXY_MAX_CONNECTIONS", "COUNT", "1024", "Connections to one backend; beyond, requests wait"),
    text(PROXY, "PROXY_CA_CERTFILE", "PATH", "", "Certificate authority of https backends, beside the system's (PEM)"),
    text(PROXY, "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", "MS", "5000", "Time for an answer over /v3/responses"),
    text(PROXY, "PROXY_KAFKA_RESPONSE_TIMEOUT", "MS", "5000", "Time for an answer over Kafka"),
    text(PROXY, "PROXY_KINESIS_RESPONSE_TIMEOUT", "MS", "5000", "Time for an answer over Kinesis"),
    text(PROXY, "PROXY_NATS_RESPONSE_TIMEOUT", "MS", "60000", "Time for an answer over NATS"),
    text(PROXY, "PROXY_KAFKA_RESPONSE_TOPICS", "TOPIC,…", "rig-proxy-response", "Topics that carry answers"),
    text(
        PROXY,
        "PROXY_REPLY_TOPIC",
        "TOPIC",
        "tidegate.replies",
        "Topic of which each node reads one partition, named in requests, for answers sent straight home",
    ),
    text(PROXY, "PROXY_MAX_PENDING", "COUNT", "100000", "Requests that may wait for correlated answers"),
    text(
        PROXY,
        "PROXY_STORED_BYTES",
        "BYTES",
        "67108864",
        "Memory for answers kept for idempotency-key and respond-async",
    ),
    text(PROXY, "PROXY_STORED_SECONDS", "SECONDS", "300", "How long such answers are kept"),
    text(PROXY, "PROXY_KINESIS_REQUEST_REGION", "REGION", "", "Region of the Kinesis stream for requests"),
    text(OTHER, "NATS_SERVERS", "HOST:PORT,…", "", "NATS servers"),
    text(OTHER, "NATS_SOURCE_TOPICS", "TOPIC,…", "rig", "NATS subjects to read events from"),
    text(OTHER, "NATSTOFILTER_QUEUE_GROUP", "NAME", "rig-nats-to-filter", "NATS queue group"),
    switch(OTHER, "KINESIS_ENABLED", "false", "Read events from Kinesis"),
    text(OTHER, "KINESIS_STREAM", "NAME", "RIG-outbound", "Kinesis stream"),
    text(OTHER, "KINESIS_AWS_REGION", "REGION", "eu-west-1", "Region of the Kinesis stream"),
    text(OTHER, "KINESIS_ENDPOINT", "URL", "", "Kinesis endpoint"),
    text(OTHER, "KINESIS_DYNAMODB_ENDPOINT", "URL", "", "DynamoDB endpoint for Kinesis"),
    text(OTHER, "KINESIS_LOG_LEVEL", "LEVEL", "INFO", "Log level of the Kinesis client"),
    text(OTHER, "KINESIS_APP_NAME", "NAME", "Reactive-Interaction-Gateway", "Application name for Kinesis"),
    hidden(switch(
        LISTENERS,
        "TEST_ECHO_ENDPOINT",
        "false",
        "Serve a WebSocket echo at /_tidegate/test/echo, for conformance suites",
    )),
    erlang("NODE_HOST", "there is no Erlang distribution: nodes share Kafka and need no names"),
    erlang("DISCOVERY_TYPE", "nodes need no discovery: they share Kafka"),
    erlang("DNS_NAME", "nodes need no discovery: they share Kafka"),
    erlang("KINESIS_CLIENT_JAR", "no Java runs beside Tidegate"),
    erlang("KINESIS_OTP_JAR", "no Java runs beside Tidegate"),
    erlang("KAFKATOFILTER_KAFKA_GROUP_ID", "every node reads all partitions itself, without a consumer group"),
    erlang("PROXY_KAFKA_RESPONSE_KAFKA_GROUP_ID", "every node reads its own answers, without a consumer group"),
];

/// Whether the setting is one of Erlang's own, which nothing reads any more; its help says what replaced it.
#[must_use]
pub fn is_erlang(setting: &Setting) -> bool {
    setting.heading == ERLANG
}
