//! Every kind of mistake in a file, with its line and key.

use super::*;

/// `SMALL` and more; the mistake is at the line that ends with `#!`, or there is no such line and the line is 0.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_mistake_is_reported_at_its_line_and_key() {
    let d = SERVICE;
    let key = format!("[nevermined]\nkey = \"{KEY}\"\n");
    let service = format!("[[service]]\nid = \"{d}\"\nplan = \"{d}\"\n");
    let mut surprises = Vec::new();
    for (more, key, message) in [
        ("[server]\nthreads = 0 #!", "server.threads", "from 1 to 1024"),
        ("[server]\nthreads = \"4\" #!", "server.threads", "whole number"),
        ("[server]\nthread = 4 #!", "server.thread", "there is no such key; did you mean `threads`?"),
        ("[server]\ngrace_period = 10 #!", "server.grace_period", "in quotes"),
        ("[server]\ngrace_period = \"1500ms\" #!", "server.grace_period", "whole seconds"),
        ("[server]\nheader_timeout = \"0s\" #!", "server.header_timeout", "longer than nothing"),
        ("[server]\nmax_header_bytes = 10 #!", "server.max_header_bytes", "from 1KiB to 1MiB"),
        ("[server]\ntrusted_proxies = [\n\"10.0.0.0/8\",\n\"x\"] #!", "server.trusted_proxies", "must be a network"),
        ("[servre] #!\nthreads = 4", "servre", "did you mean `server`?"),
        ("server = 4 #!", "route[1].server", "there is no such key"),
        ("[[server]] #!\nthreads = 1", "server", "must be a table"),
        ("[[listener]] #!\nname = \"x\"", "listener[2].address", "is missing"),
        ("[[listener]]\naddress = \"x\" #!", "listener[2].address", "an IP address and a port"),
        (
            "[[listener]]\naddress = \"127.0.0.1:9\"\nname = \"http\" #!",
            "listener[2].name",
            "already the name of listener[1]",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:9464\"\n[admin]\naddress = \"127.0.0.1:9464\" #!",
            "admin.address",
            "already taken",
        ),
        ("[[listener]]\naddress = \"127.0.0.1:9\"\n[listener.tls] #!", "listener[2].tls.certificate", "is missing"),
        ("[[listener]]\naddress = \"127.0.0.1:9\"\ntls = true #!", "listener[2].tls", "must be a table"),
        ("[admin]\nadress = \"\" #!", "admin.adress", "did you mean `address`?"),
        ("[introspection] #!", "introspection.address", "is missing"),
        ("[database]\nurl = \"mysql://u:hunter2@h/d\" #!", "database.url", "must be postgres://"),
        ("[database]\nurl = 4 #!", "database.url", "in quotes"),
        ("[database]\nurl = \"sqlite://a\"\nurl_file = \"b\" #!", "database.url_file", "there is also `url`"),
        ("[database]\nurl_file = \"/no/such\" #!", "database.url_file", "cannot read /no/such"),
        ("[database]\naccess_tables = true #!", "database.access_tables", "Postgres only"),
        ("[database]\nmax_connections = 0 #!", "database.max_connections", "from 1 to 1000"),
        ("[usage]\nwhen_full = \"drop\" #!", "usage.when_full", "must be \"refuse\" or \"serve-unmetered\""),
        ("[usage]\nspool_max_bytes = \"1MiB\" #!", "usage.spool_max_bytes", "two segments"),
        ("[usage]\nsegment_bytes = \"1KB\" #!", "usage.segment_bytes", "a size like"),
        ("[usage.report] #!", "usage.report.url", "is missing"),
        ("[nevermined] #!", "nevermined", "there is no key"),
        ("[nevermined]\nkey = \"hunter2\" #!", "nevermined.key", "32 random bytes"),
        ("[nevermined]\nkey = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\" #!", "nevermined.key", "32 zero bytes"),
        (
            "[nevermined]\nkey_phrase = \"12345678901234567890123456789012\" #!",
            "nevermined.key_phrase",
            "published default",
        ),
        ("[nevermined]\nkey = \"a\"\nkey_phrase = \"b\" #!", "nevermined.key_phrase", "one of the two"),
        ("[marketplace] #!", "marketplace.url", "is missing"),
        ("[marketplace]\nurl = \"https://u:hunter2@h\" #!", "marketplace.url", "user name or password"),
        ("[chain] #!", "chain.rpc", "is missing"),
        ("[chain]\nrpc = \"hunter2\" #!", "chain.rpc", "must be a URL"),
        ("[auth_request] #!", "auth_request.address", "is missing"),
        ("[auth_request]\naddress = \"8080\" #!", "auth_request.address", "an IP address and a port"),
        ("[auth_request]\naddress = \":1\"\ntrusted_peers = [] #!", "auth_request.trusted_peers", "a list of nobody"),
        ("[auth_request]\naddress = \":1\"\nhealth_path = \"x\" #!", "auth_request.health_path", "must be a path"),
        (
            "[auth_request]\naddress = \":1\"\ncompatibility = \"nevermined\" #!",
            "auth_request.compatibility",
            "no other system",
        ),
        ("[auth_request] #!\naddress = \":1\"", "auth_request", "needs a [neurons] section"),
        (
            "[auth_request]\naddress = \":1\"\n[auth_request.neurons]\nhotkeys = [] #!",
            "auth_request.neurons.hotkeys",
            "a list of nobody",
        ),
        (
            "[neurons]\nnetuid = 2\n[pylon]\nurl = \"http://h\"\nidentity = \"i\"\n[auth_request]\naddress = \":1\"\n\
             [auth_request.neurons] #!\nnetuid = 3",
            "auth_request.neurons",
            "subnet 3 needs a [[pylon.subnet]]",
        ),
        ("[neurons] #!\nnetuid = 2", "neurons.source", "neither a [subtensor] nor a [pylon]"),
        ("[neurons]\nnetuid = 2\nsource = \"pylon\" #!", "neurons.source", "needs a [pylon]"),
        ("[neurons]\nsource = \"subtensor\" #!", "neurons.source", "needs a [subtensor]"),
        (
            "[neurons] #!\nnetuid = 2\n[subtensor]\nurl = \"ws://h\"\n[pylon]\nurl = \"http://h\"\nidentity = \"i\"",
            "neurons.source",
            "is missing",
        ),
        ("[neurons] #!\n[subtensor]\nurl = \"ws://h\"", "neurons.netuid", "is missing"),
        ("[neurons]\nnetuid = 65536 #!\n[subtensor]\nurl = \"ws://h\"", "neurons.netuid", "at most 65535"),
        (
            "[neurons]\nnetuid = 2\nstale_for = \"1s\" #!\n[subtensor]\nurl = \"ws://h\"",
            "neurons.stale_for",
            "shorter than",
        ),
        ("[subtensor] #!", "subtensor.url", "is missing"),
        ("[subtensor]\nurl = \"ftp://hunter2\" #!", "subtensor.url", "must be a URL that begins with wss://"),
        ("[subtensor]\nurl = \"ws://h\"\ngenesis_hash = \"0x12\" #!", "subtensor.genesis_hash", "64 hexadecimal"),
        ("[pylon] #!\nidentity = \"i\"", "pylon.url", "is missing"),
        ("[pylon] #!\nurl = \"http://h\"", "pylon.identity", "is missing"),
        ("[pylon]\nurl = \"http://h\"\nidentity = \"a/b\" #!", "pylon.identity", "a name of letters"),
        (
            "[pylon]\nurl = \"http://h\"\nidentity = \"i\"\n[[pylon.subnet]] #!\nidentity = \"j\"",
            "pylon.subnet[1].netuid",
            "is missing",
        ),
        (
            "[pylon]\nurl = \"http://h\"\nidentity = \"i\"\n[[pylon.subnet]] #!\nnetuid = 3",
            "pylon.subnet[1].identity",
            "is missing",
        ),
        (
            "[pylon]\nurl = \"http://h\"\nidentity = \"i\"\n[[pylon.subnet]]\nnetuid = 3\nidentity = \"i\" #!",
            "pylon.subnet[1].identity",
            "an identity belongs to one subnet",
        ),
        (
            "[pylon]\nurl = \"http://h\"\nidentity = \"i\"\n[[pylon.subnet]]\nnetuid = 3\nidentity = \"j\"\n\
             [[pylon.subnet]]\nnetuid = 3 #!\nidentity = \"k\"",
            "pylon.subnet[2].netuid",
            "who is asked for subnet 3?",
        ),
        (
            "[[service]]\nid = \"did:nv:1\" #!\nplan = \"did:nv:2222222222222222222222222222222222222222222222222222222222222222\"",
            "service[1].id",
            "64 hexadecimal",
        ),
        (&format!("{}credits = \"chain\"", service.replace("]]", "]] #!")), "service[1].contract", "is missing"),
        (
            &format!("{service}contract = \"0x00000000000000000000000000000000000000c0\" #!"),
            "service[1].contract",
            "no effect",
        ),
        (
            &format!("{service}contract = \"0x00000000000000000000000000000000000000c0\"\ncredits = \"chain\" #!"),
            "service[1].credits",
            "needs a [chain]",
        ),
        (&format!("{service}maximum = 1\nminimum = 2 #!"), "service[1].minimum", "more than `maximum`"),
        (&format!("{service}amount = -1 #!"), "service[1].amount", "not below 0"),
        (&format!("{service}charge = \"free\" #!"), "service[1].charge", "\"fixed\" or \"dynamic\""),
        (&format!("{service}open_endpoints = [\"/x\"] #!"), "service[1].open_endpoints", "is no endpoint"),
        (
            &format!("{service}[[service]]\nplan = \"{d}\"\nid = \"{d}\" #!"),
            "service[2].id",
            "already the name of service[1].id",
        ),
        ("[signed_requests]\nreceiver = \"5G\" #!", "signed_requests.receiver", "a hotkey is an SS58 address"),
        ("[signed_requests]\nmax_age = \"6m\" #!", "signed_requests.max_age", "at most 300 s"),
        ("[signed_requests]\nepistula_max_age = \"0s\" #!", "signed_requests.epistula_max_age", "longer than nothing"),
        ("[signed_requests]\nmax_held_bytes = \"1KiB\" #!", "signed_requests.max_held_bytes", "room for one body"),
        ("[signed_requests]\nmax_held_bytes = \"3GiB\" #!", "signed_requests.max_held_bytes", "at most 2GiB"),
        ("[signed_requests]\nreplay = \"redis\" #!", "signed_requests.replay", "\"memory\" or \"store\""),
        ("[credits]\nmax_accounts = 0 #!", "credits.max_accounts", "from 1 to"),
        ("[egress]\nallow = \"10.0.0.1/8\" #!", "egress.allow", "bits set"),
        ("[egress]\nextra_ca = \"/no/such\" #!", "egress.extra_ca", "cannot read"),
        ("[egress]\ntotal_connect_timeout = \"1s\" #!", "egress.total_connect_timeout", "shorter than"),
        ("[[upstream]] #!\nname = \"x\"", "upstream[2].addresses", "is missing"),
        ("[[upstream]]\nname = \"x\"\naddresses = [] #!", "upstream[2].addresses", "at least one"),
        ("[[upstream]]\nname = \"x\"\naddresses = [\"http://h:1\"] #!", "upstream[2].addresses", "no scheme"),
        (
            "[[upstream]]\naddresses = [\"h:1\"]\nname = \"one\" #!",
            "upstream[2].name",
            "already the name of upstream[1]",
        ),
        ("[[upstream]]\naddresses = [\"h:1\"]\nname = \"token\" #!", "upstream[2].name", "what routes write"),
        (
            "[[upstream]]\nname = \"x\"\naddresses = [\"h:1\"]\nserver_name = \"h\" #!",
            "upstream[2].server_name",
            "without `tls = true`",
        ),
        (
            "[[route]]\nname = \"r\"\npath = \"/r\"\nupstream = \"two\" #!",
            "route[2].upstream",
            "there is no [[upstream]] named \"two\"",
        ),
        ("[[route]] #!\nname = \"r\"\nupstream = \"one\"", "route[2]", "can never be reached: route \"all\""),
        ("path = \"/r/\" #!", "route[1].path", "must not end with"),
        ("hosts = [\"h:80\"] #!", "route[1].hosts", "without a port"),
        ("methods = [\"get\"] #!", "route[1].methods", "capital letters"),
        ("accepts = [\"basic\"] #!", "route[1].accepts", "must be \"nevermined\""),
        ("open_endpoints = true #!", "route[1].open_endpoints", "needs `upstream = \"token\"`"),
        (&format!("services = [\"{d}\"] #!"), "route[1].services", "has no effect"),
        (
            &format!("services = [\"{d}\"]\naccepts = [\"nevermined\"] #!\n{service}"),
            "route[1].accepts",
            "needs a [nevermined]",
        ),
        (
            &format!("accepts = [\"nevermined\"]\nservices = [\"{d}\"] #!\n{key}"),
            "route[1].services",
            "not a [[service]]",
        ),
        ("compatibility = \"nginx\" #!", "route[1].compatibility", "\"standard\" or \"nevermined\""),
        ("compatibility = \"nexus-auth\" #!", "route[1].compatibility", "needs `accepts = [\"client-certificate\"]`"),
        ("[route.neurons] #!", "route[1].neurons", "has no effect"),
        ("[route.cors]\nallow_credentials = true #!", "route[1].cors.allow_credentials", "needs a list"),
        ("[route.cors]\nallow_origins = [\"*\", \"https://a.example\"] #!", "route[1].cors.allow_origins", "everybody"),
        ("[route.cors]\nallow_origins = [\"https://a.example/\"] #!", "route[1].cors.allow_origins", "without a path"),
        ("[route.cors]\nexpose_headers = [\"a b\"] #!", "route[1].cors.expose_headers", "name of a header"),
        ("[log]\nlevel = \"loud\" #!", "log.level", "\"error\" or"),
        ("[log]\naccess = \"yes\" #!", "log.access", "true or false"),
        ("\"environment: X\" = 1 #!", "route[1].environment: X", "there is no such key"),
    ] {
        let text = format!("{SMALL}{more}\n");
        let line = text.lines().position(|line| line.ends_with("#!")).map(|index| index + 1);
        let error = parse(&text).err().unwrap_or_else(|| panic!("accepted: {more}"));
        let [mistake] = &error.mistakes[..] else {
            surprises.push(format!("{more}:\n{error}"));
            continue;
        };
        if (mistake.key.as_str(), Some(mistake.line)) != (key, line) || !mistake.message.contains(message) {
            surprises.push(format!("{more}:\n{error}"));
        }
        assert_eq!(mistake.file.as_deref(), Some(Path::new("t.toml")));
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n\n"));
}

#[test]
fn mistakes_between_sections_are_reported() {
    let tls = "[[listener]]\naddress = \"127.0.0.1:9\"\n[listener.tls]\n";
    let by_certificate = format!("{SMALL}accepts = [\"client-certificate\"]\n[route.neurons]\n");
    let by_pylon = "[neurons]\nnetuid = 2\n[pylon]\nurl = \"http://h\"\nidentity = \"i\"\n";
    for (text, message) in [
        (String::new(), "listener: there is nothing to do"),
        ("[[listener]]\naddress = \"127.0.0.1:9\"\n".into(), "route: there is a listener and no [[route]]"),
        (format!("{SMALL}[marketplace]\nurl = \"http://m\"\n"), "chain: is missing"),
        (format!("{SMALL}[introspection]\naddress = \"127.0.0.1:9\"\n"), "introspection: needs a [nevermined]"),
        (format!("{SMALL}[introspection]\naddress = \"127.0.0.1:9\"\n"), "introspection: needs a [[route]] with"),
        (
            SMALL.replace("upstream = \"one\"", "upstream = \"token\""),
            "t.toml:10: route[1].upstream: \"token\" needs a [marketplace] or a [[service]]",
        ),
        (
            SMALL.replace("upstream = \"one\"", "upstream = \"token\"\naccepts = []"),
            "t.toml:11: route[1].accepts: must have \"nevermined\"",
        ),
        (
            SMALL.replace("upstream = \"one\"", "upstream = \"token\"\npreserve_host = true"),
            "t.toml:11: route[1].preserve_host: must be false",
        ),
        (
            SMALL.replace("upstream = \"one\"", &format!("upstream = \"token\"\nservices = [\"{SERVICE}\"]")),
            "t.toml:11: route[1].services: must be left out",
        ),
        (format!("{SMALL}accepts = [\"nevermined\"]\n"), "route[1].services: is missing: name the services"),
        (format!("{tls}alpn = [\"h3\", \"http/1.1\"]\n"), "HTTP/3 is not spoken here"),
        (format!("{tls}alpn = [\"spdy/1\", \"http/1.1\"]\n"), "no \"spdy/1\""),
        (format!("{tls}alpn = [\"h2\"]\n"), "\"http/1.1\" cannot be left out"),
        (
            format!("{tls}[[listener.tls.certificate]]\ncert = \"/no/such\"\nkey = \"/no/such\"\n"),
            "listener[1].tls.certificate[1].cert: cannot read",
        ),
        (format!("{tls}client_certificates = \"yes\"\n"), "must be \"ignore\" or \"optional\" or \"required\""),
        (
            format!("{SMALL}accepts = [\"client-certificate\"]\n"),
            "route[1].accepts: \"client-certificate\" needs a listener",
        ),
        (format!("{SMALL}accepts = [\"client-certificate\"]\n"), "\"client-certificate\" needs a [neurons] section"),
        (
            format!("{by_certificate}netuid = 3\n{by_pylon}"),
            "route[1].neurons.netuid: Pylon's identity \"i\" is asked about subnet 2 alone: subnet 3 needs a \
             [[pylon.subnet]]",
        ),
        (
            format!("{by_certificate}{by_pylon}[[pylon.subnet]]\nnetuid = 2\nidentity = \"j\"\n"),
            "pylon.subnet: subnet 2 is that of [neurons]",
        ),
        (format!("{by_certificate}netuid = 70000\n"), "route[1].neurons.netuid: must be at most 65535"),
        (format!("{by_certificate}min_stake = -1\n"), "route[1].neurons.min_stake: must be"),
        (format!("{by_certificate}min_stake = 0.1234567891\n"), "route[1].neurons.min_stake: must be a stake"),
        (format!("{by_certificate}hotkeys = []\n"), "route[1].neurons.hotkeys: is a list of nobody"),
        (format!("{by_certificate}hotkeys = [\"5G\"]\n"), "route[1].neurons.hotkeys: a hotkey is an SS58 address"),
        (
            SMALL.replace(
                "upstream = \"one\"",
                "upstream = \"token\"\naccepts = [\"client-certificate\", \"nevermined\"]",
            ),
            "route[1].accepts: a proof of being a neuron needs an `upstream` of this file",
        ),
        (
            format!("{SMALL}accepts = [\"client-certificate\"]\ncompatibility = \"nevermined\"\n"),
            "route[1].compatibility: \"nevermined\" knew its own tokens alone",
        ),
        (
            format!("{SMALL}accepts = [\"btauth\"]\n"),
            "route[1].accepts: signed requests need a [signed_requests] section",
        ),
        (format!("{SMALL}accepts = [\"btauth\"]\n"), "route[1].accepts: signed requests need a [neurons] section"),
        (
            format!("{SMALL}accepts = [\"epistula\"]\n[route.neurons]\nregistered = false\n[signed_requests]\n"),
            "signed_requests.receiver: is missing: our own hotkey",
        ),
        ("a = \n".into(), "t.toml:1: "),
        ("[a]\nx = 1\nx = 2\n".into(), "t.toml:3: duplicate key: `x`"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}\n{error}");
    }
    let error = load(Some(Path::new("/no/such.toml")), Environment::default(), Flags::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /no/such.toml"), "{error}");
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let files = Files::new();
    let text = "[server]\nthreads = 0\ncolour = \"red\"\n[[listener]]\naddress = \"x\"\n[[route]]\nupstream = \"y\"\n[log]\nlevel = 1\n";
    let error = files.with_file(text, &[("PG_PORT", "x"), ("SERVER_PORT", "x")], Flags::default()).unwrap_err();
    let found: Vec<_> = error.mistakes.iter().map(|mistake| (mistake.line, mistake.key.as_str())).collect();
    let expected = [
        (2, "server.threads"),
        (3, "server.colour"),
        (5, "listener[1].address"),
        (6, "route[1].name"),
        (7, "route[1].upstream"),
        (9, "log.level"),
        (0, "environment: PG_PORT"),
        (0, "environment: SERVER_PORT"),
    ];
    assert_eq!(found, expected, "{error}");
    let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), error.mistakes.len());
    assert!(
        lines.iter().any(|line| line.ends_with("t.toml:7: route[1].upstream: there is no [[upstream]] named \"y\""))
    );
}
