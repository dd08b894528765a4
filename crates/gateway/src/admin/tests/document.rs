//! Tests that the OpenAPI document lists each answer of each operation.

use std::collections::BTreeSet;

use super::*;

/// A session that is online.
const SESSION: &str = "0100000000000005";

/// A session that is a device.
const DEVICE: &str = "0100000000000006";

/// A request that fails where it applies to an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Provocation {
    NoToken,
    WebPage,
    NotText,
    UnknownParameter,
    NoJson,
    NoBody,
    LongBody,
    Unknown,
    Device,
    UsedKey,
    KeyInUse,
    Unavailable,
}

const PROVOCATIONS: [Provocation; 12] = [
    Provocation::NoToken,
    Provocation::WebPage,
    Provocation::NotText,
    Provocation::UnknownParameter,
    Provocation::NoJson,
    Provocation::NoBody,
    Provocation::LongBody,
    Provocation::Unknown,
    Provocation::Device,
    Provocation::UsedKey,
    Provocation::KeyInUse,
    Provocation::Unavailable,
];

/// Returns the API of a gateway whose shards have ended, that drains, and has no place for
/// subscribers.
fn unavailable() -> Api {
    let mut polls = Vec::new();
    let shards = vec![connect(&mut polls).0, connect(&mut polls).0];
    let gateway = Arc::new(gateway(shards, vec![Arc::default(), Arc::default()]));
    gateway.advance(Lifecycle::Draining);
    Api::new(gateway, None, 0)
}

/// Sends the provocation to an operation; returns the answer.
async fn provoke(what: Provocation, method: &Method, path: &str, has_body: bool) -> Response {
    let token = Token::new("0123456789abcdef").unwrap();
    let token = (what == Provocation::NoToken).then_some(token);
    let fixture = Fixture::with(token, 2);
    let api = if what == Provocation::Unavailable { unavailable() } else { fixture.api.clone() };
    let (session, name, query) = match what {
        Provocation::NotText => ("%ff", "%ff", ""),
        Provocation::Unknown if ["/api/v1/sessions", "/api/v1/broadcast"].contains(&path) => {
            ("", "", "?listener=none")
        }
        Provocation::Unknown => ("0000000000ffffff", "none", ""),
        Provocation::UnknownParameter => (SESSION, "line", "?colour=red"),
        Provocation::Device => (DEVICE, "line", ""),
        Provocation::NoToken
        | Provocation::WebPage
        | Provocation::NoJson
        | Provocation::NoBody
        | Provocation::LongBody
        | Provocation::UsedKey
        | Provocation::KeyInUse
        | Provocation::Unavailable => {
            (SESSION, "line", if path == "/api/v1/broadcast" { "?all=true" } else { "" })
        }
    };
    let uri =
        path.replace("{id}", session).replace("{name}", name).replace("{identity}", name) + query;
    let mut sample = sample_body(path).map_or(String::new(), |body| body.to_string());
    if what == Provocation::Device && path.ends_with("/kick") {
        // A boot id, which no beacon has.
        sample = json!({"ban": {"seconds": 60, "of": ["device"]}}).to_string();
    }
    let body = if what == Provocation::NoJson && has_body {
        Body::from("{")
    } else if what == Provocation::LongBody && has_body {
        Body::from("x".repeat(crate::admin::presence::MAX_ASKED.max(MAX_DATA) + 1))
    } else if what == Provocation::NoBody && has_body {
        Body::from_stream(futures_util::stream::pending::<Result<String, String>>())
    } else {
        Body::from(sample.clone())
    };
    let mut request = HttpRequest::builder().method(method).uri(&uri);
    if what == Provocation::UsedKey {
        api.sent.begin("key", &[b"another request"]).unwrap();
    } else if what == Provocation::KeyInUse {
        api.sent.begin("key", &[uri.as_bytes(), sample.as_bytes()]).unwrap();
    }
    if matches!(what, Provocation::UsedKey | Provocation::KeyInUse) {
        request = request.header("Idempotency-Key", "key");
    }
    if what == Provocation::WebPage {
        request = request.header(header::HOST, "rebound.example.org");
    }
    // Only then, because shards that are asked answer from threads with the real time.
    let waits = what == Provocation::NoBody && has_body;
    if waits {
        tokio::time::pause();
    }
    let response = respond(&api, request.body(body).unwrap()).await;
    if waits {
        tokio::time::resume();
    }
    response
}

#[tokio::test]
async fn each_operation_lists_exactly_the_failures_that_it_can_have() {
    let document = document();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (name, operation) in operations.as_object().unwrap() {
            let method: Method = name.to_uppercase().parse().unwrap();
            let has_body = operation.get("requestBody").is_some();
            let mut seen = BTreeSet::new();
            for what in PROVOCATIONS {
                let response = provoke(what, &method, path, has_body).await;
                let status = response.status();
                if status.is_success() {
                    continue;
                }
                seen.insert(status.as_str().to_owned());
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                let answer: Value = serde_json::from_slice(&bytes)
                    .unwrap_or_else(|_| panic!("{what:?} {name} {path}: no JSON: {bytes:?}"));
                let schema = json!({"$ref": "#/components/schemas/Trouble"});
                assert_conforms(&document, &schema, &answer, &format!("{name} {path}"));
                let text = answer.to_string();
                for jargon in ["expected", "invalid type", "u64", "column 0", "Utf8", "UTF-8 in"] {
                    assert!(!text.contains(jargon), "{what:?} {name} {path}: {text}");
                }
            }
            let listed = operation["responses"].as_object().unwrap().keys();
            // A scrape fails only by a bug.
            let listed = listed.filter(|status| !status.starts_with('2') && *status != "500");
            assert_eq!(seen, listed.cloned().collect(), "{name} {path}");
        }
    }
}

#[test]
fn guarded_operations_name_the_token() {
    let document = document();
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    for (path, operations) in document["paths"].as_object().unwrap() {
        let is_open = open_routes().iter().any(|(open, _)| open == path);
        let security = if is_open { json!([]) } else { json!([{}, {"token": []}]) };
        for (name, operation) in operations.as_object().unwrap() {
            assert_eq!(operation["security"], security, "{name} {path}");
        }
    }
}

/// Returns the names and the schemas of the whole numbers among members or parameters.
fn numbers<'a>(schemas: impl Iterator<Item = (&'a str, &'a Value)>) -> Vec<(&'a str, &'a Value)> {
    let is_number = |schema: &Value| {
        let kind = &schema["type"];
        kind == "integer" || kind.as_array().is_some_and(|all| all.contains(&json!("integer")))
    };
    schemas.filter(|(_, schema)| is_number(schema)).collect()
}

/// Sends requests at the bounds of a number and one beyond each; `send` sends one and returns the
/// error of the answer.
async fn check_bounds(name: &str, schema: &Value, send: impl AsyncFn(u64) -> String) {
    let bound = |key: &str| schema[key].as_u64().unwrap_or_else(|| panic!("{name} has no {key}"));
    let (least, most) = (bound("minimum"), bound("maximum"));
    let refusal = format!("`{name}` must be a whole number from {least} to {most}");
    for outside in least.checked_sub(1).into_iter().chain([most + 1]) {
        assert_eq!(send(outside).await, refusal, "{outside}");
    }
    for inside in [least, most] {
        assert!(!send(inside).await.contains("must be a whole number"), "{name} {inside}");
    }
}

#[tokio::test]
async fn each_number_of_a_request_has_the_bounds_of_the_document() {
    let (document, fixture) = (document(), Fixture::new());
    let mut checked = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let uri = path.replace("{id}", SESSION).replace("{name}", "line");
        for (method, operation) in operations.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.map(|it| (it["name"].as_str().unwrap(), &it["schema"]));
            for (name, schema) in numbers(parameters) {
                let send = async |value| {
                    let answer = fixture.get(&format!("{uri}?{name}={value}")).await.1;
                    answer["error"].as_str().unwrap_or_default().to_owned()
                };
                check_bounds(name, schema, send).await;
                checked.insert(name.to_owned());
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let Some(body) = body.as_str().and_then(|name| name.rsplit('/').next()) else {
                continue;
            };
            let members = document["components"]["schemas"][body]["properties"].as_object();
            let members = members.unwrap().iter().map(|(name, schema)| (name.as_str(), schema));
            for (name, schema) in numbers(members) {
                let send = async |value: u64| {
                    let body = json!({ name: value });
                    let answer = fixture.send(method.clone(), &uri, Some(body)).await.1;
                    answer["error"].as_str().unwrap_or_default().to_owned()
                };
                check_bounds(name, schema, send).await;
                checked.insert(name.to_owned());
            }
        }
    }
    let all = ["bound_ms", "idle_ms", "interval_ms", "keepalive_ms", "limit", "probes", "seconds"];
    assert_eq!(checked, all.map(str::to_owned).into());
}

#[tokio::test]
async fn what_the_path_cannot_decode_is_refused_as_json() {
    let fixture = Fixture::new();
    let (status, answer) = fixture.get("/api/v1/sessions/%ff").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"].is_string() && answer["hint"].is_string(), "{answer}");
}

#[tokio::test]
async fn a_policy_as_it_was_read_may_be_written() {
    let fixture = Fixture::new();
    let path = "/api/v1/listeners/native/policy";
    for wish in [
        json!({"preset": "relaxed", "keepalive_ms": 7_000}),
        json!({"never": true, "spread": false, "keepalive_ms": 0}),
        json!({"preset": "demanding", "enforce": false}),
    ] {
        let (status, answer) = fixture.send(Method::PUT, path, Some(wish)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (_, read) = fixture.get(path).await;
        fixture.send(Method::PUT, path, Some(json!({"preset": "default"}))).await;
        let (status, answer) = fixture.send(Method::PUT, path, Some(read.clone())).await;
        assert_eq!((status, &answer["new"]), (StatusCode::OK, &read));
    }
    let wrong = json!({"idle_ms": 1_000, "bound_ms": 1_000});
    let (status, answer) = fixture.send(Method::PUT, path, Some(wrong)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"].as_str().unwrap().contains("bound_ms"), "{answer}");
}

#[tokio::test]
async fn a_session_shows_its_whole_policy() {
    let fixture = Fixture::new();
    let (_, session) = fixture.get(&format!("/api/v1/sessions/{}", id(0, 0))).await;
    let policy = &session["policy"];
    assert_eq!(*policy, fixture.get("/api/v1/listeners/native/policy").await.1);
    assert_eq!((&policy["enforce"], &policy["keepalive_ms"]), (&json!(true), &json!(0)));
}

/// The words that a property of a schema may be.
fn words<'a>(schema: &'a Value, property: &str) -> &'a Value {
    let parts = schema["allOf"].as_array().into_iter().flatten().chain([schema]);
    let found = parts.map(|part| &part["properties"][property]["enum"]).find(|it| !it.is_null());
    found.unwrap_or(&Value::Null)
}

#[test]
fn the_document_names_all_causes_wherever_one_stands() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let causes = json!(systole_core::cause::Cause::NAMES);
    for (schema, property) in [
        ("End", "cause"),
        ("Last", "cause"),
        ("Revised", "cause"),
        ("Revision", "from"),
        ("Revision", "to"),
    ] {
        assert_eq!(*words(&schemas[schema], property), causes, "{schema}.{property}");
    }
    let parameters = document["paths"]["/api/v1/verdicts"]["get"]["parameters"].as_array().unwrap();
    let cause = parameters.iter().find(|it| it["name"] == "cause").unwrap();
    assert_eq!(cause["schema"]["enum"], causes);
    let confidences = json!(["medium", "high", "certain"]);
    assert_eq!(*words(&schemas["End"], "confidence"), confidences);
    let moved = schemas["Body"]["oneOf"].as_array().unwrap();
    let from = moved.iter().map(|kind| words(kind, "from"));
    assert!(from.into_iter().all(Value::is_null), "the address before a move is no cause");
}
