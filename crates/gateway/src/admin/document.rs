//! The OpenAPI document of the admin API: what the handlers declare, completed by what holds for
//! many of them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};
use systole_core::cause::{Cause, Confidence};
use utoipa::OpenApi;

use super::fields::FromFields;
use super::open_routes;
use super::paging::Paging;
use super::policy::PolicyWish;
use super::{bans, control, health, kick, presence, send, sessions, stream, webhooks, why};

/// What the handlers declare.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Systole admin API",
        description = "Who is there, who went, and when.\n\nA value that does not apply is absent \
                       from an answer, never null; a null in a request is as good as absent. What \
                       the HTTP layer refuses by itself (a head that is too long or no HTTP) has \
                       no body.\n\nA method that a path does not have is answered with 405, and a \
                       path that is not listed with 404, each with a body as any other failure.",
    ),
    components(schemas(send::Reach)),
    paths(
        health::healthz,
        health::readyz,
        health::metrics,
        sessions::list,
        sessions::one,
        kick::delete,
        kick::kick,
        sessions::hold,
        sessions::release,
        sessions::policy,
        why::why,
        why::verdicts,
        bans::list,
        bans::set,
        webhooks::list,
        send::to_session,
        send::to_identity,
        send::broadcast,
        presence::one,
        presence::many,
        control::listeners,
        control::listener_policy,
        control::retune,
        control::log,
        control::drain,
        stream::events,
        super::document_of_api
    )
)]
struct Declared;

/// All confidences.
const CONFIDENCES: [Confidence; 3] = [Confidence::Medium, Confidence::High, Confidence::Certain];

/// The meaning of each status of a failure, which is the same for all operations.
const FAILURES: [(&str, &str); 10] = [
    ("400", "The request has a mistake, which the answer names"),
    ("401", "The token is missing or wrong"),
    ("403", "The request may come from a web page, and no token is configured"),
    ("404", "There is no such session or listener"),
    ("408", "The body did not arrive in time"),
    ("409", "The session cannot have what was asked, or the same request is under way"),
    ("413", "The body is too long"),
    ("422", "The Idempotency-Key was used for another request"),
    ("500", "The gateway has a bug"),
    ("503", "The gateway cannot do this now; the answer names the reason"),
];

/// Returns the document.
pub(super) fn document() -> Value {
    let mut document =
        serde_json::to_value(Declared::openapi()).expect("its types have string keys");
    let mut bodies = BTreeSet::new();
    for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        let is_open = open_routes().iter().any(|(open, _)| open == path);
        for operation in operations.as_object_mut().into_iter().flatten().map(|(_, one)| one) {
            complete(path, operation, is_open);
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap_or_default();
                let range = range_of(&query_ranges(path), name);
                set_range(&mut parameter["schema"], range);
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            bodies
                .extend(body.as_str().and_then(|name| name.rsplit('/').next()).map(str::to_owned));
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object_mut().into_iter().flatten() {
        if !bodies.contains(name) {
            without_null(schema);
        }
        let ranges = body_ranges(name);
        for (name, schema) in schema["properties"].as_object_mut().into_iter().flatten() {
            set_range(schema, range_of(&ranges, name));
        }
    }
    set_words(&mut document);
    document["components"]["securitySchemes"] = json!({"token": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of [admin] in the configuration. Without one there, none is \
                        needed, and requests that may come from a web page are refused.",
    }});
    document
}

/// The names of numbers, with their ranges.
type Ranges = Vec<(&'static str, RangeInclusive<u64>)>;

/// Returns the ranges of the numbers in the query of a request.
fn query_ranges(path: &str) -> Ranges {
    match path {
        "/api/v1/sessions" => <(sessions::Wanted, Paging)>::ranges(),
        "/api/v1/verdicts" => <(why::Wanted, Paging)>::ranges(),
        _ => Vec::new(),
    }
}

/// Returns the ranges of the numbers in a body, by the name of its schema.
fn body_ranges(schema: &str) -> Ranges {
    match schema {
        "Hold" => sessions::Hold::ranges(),
        "Wish" => bans::Wish::ranges(),
        "KickBan" => kick::KickBan::ranges(),
        "PolicyWish" => PolicyWish::ranges(),
        _ => Vec::new(),
    }
}

fn range_of(ranges: &Ranges, name: &str) -> Option<RangeInclusive<u64>> {
    ranges.iter().find(|(known, _)| *known == name).map(|(_, range)| range.clone())
}

/// Declares the range in which a request may have a number.
fn set_range(schema: &mut Value, range: Option<RangeInclusive<u64>>) {
    if let Some(range) = range {
        schema["minimum"] = json!(range.start());
        schema["maximum"] = json!(range.end());
    }
}

/// Declares, wherever a cause or a confidence stands, which words it may be.
fn set_words(schema: &mut Value) {
    let causes = || json!(Cause::NAMES);
    let is_cause = schema["in"] == "query" && schema["name"] == "cause";
    if is_cause {
        schema["schema"]["enum"] = causes();
    }
    if let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let is_revision = members.contains_key("from") && members.contains_key("to");
        for (name, member) in members {
            let words = match name.as_str() {
                "cause" => causes(),
                "from" | "to" if is_revision => causes(),
                "confidence" => json!(CONFIDENCES.map(Confidence::name)),
                _ => continue,
            };
            member["enum"] = words;
        }
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(set_words),
        Value::Array(items) => items.iter_mut().for_each(set_words),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds to an operation the security and the failures that follow from its form.
fn complete(path: &str, operation: &mut Value, is_open: bool) {
    let has_body = operation.get("requestBody").is_some();
    let in_path = path.contains('{');
    // That nobody is there is an answer for these, and no failure.
    let may_be_missing = in_path && !path.contains("{identity}") && !path.ends_with("/send");
    let parameters = operation["parameters"].as_array_mut();
    let mut in_query = false;
    for parameter in parameters.into_iter().flatten() {
        in_query |= parameter["in"] == "query";
        without_null(parameter);
    }
    if operation["parameters"].is_null() {
        operation.as_object_mut().map(|members| members.remove("parameters"));
    }
    operation["security"] = if is_open { json!([]) } else { json!([{}, {"token": []}]) };
    let responses = operation["responses"].as_object_mut().expect("it has answers");
    let applies = [
        ("400", has_body || in_path || in_query),
        ("401", !is_open),
        ("403", !is_open),
        ("404", may_be_missing),
        ("408", has_body),
        ("413", has_body),
    ];
    for (status, _) in applies.into_iter().filter(|(_, applies)| *applies) {
        responses.entry(status).or_insert(Value::Null);
    }
    for (status, meaning) in FAILURES {
        if let Some(response) = responses.get_mut(status) {
            let schema = json!({"$ref": "#/components/schemas/Trouble"});
            *response = json!({
                "description": meaning,
                "content": {"application/json": {"schema": schema}},
            });
        }
    }
}

/// Removes null from the values that a schema allows: the gateway never writes it.
fn without_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type").filter(|types| types.is_array()) {
        let all = types.as_array().into_iter().flatten();
        let mut left: Vec<Value> = all.filter(|one| *one != "null").cloned().collect();
        *types = if left.len() == 1 { left.remove(0) } else { Value::Array(left) };
    }
    if let Some(choices) = schema.get_mut("oneOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            let only = only.clone();
            let members: &mut Map<String, Value> = schema.as_object_mut().expect("it has members");
            members.remove("oneOf");
            members.extend(only.as_object().cloned().into_iter().flatten());
        }
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(without_null),
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
