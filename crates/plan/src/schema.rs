//! The JSON Schema of a plan, for editors: made from the same table that the check reads.
//!
//! It knows the shape. What needs more than one place to see (references, cycles, whether an
//! objective can be kept) only the check knows.

use serde_json::{Map, Value, json};

use crate::{
    fields::PLAN,
    shape::{Field, Keys, Object, Shape},
};

/// Makes the schema, of draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut schema = object(&PLAN);
    if let Some(members) = schema.as_object_mut() {
        members.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        members.insert("title".into(), "A plan of Muster".into());
        members.insert("description".into(), "Disaster recovery as code: muster.yaml".into());
    }
    schema
}

const DURATION: &str = "^(?=.*[1-9])([0-9]+(ms|s|m|h|d|w))+$";
const WITHIN: &str = "^(?=.*[1-9])([0-9]+[ymdh])+$";
const RATE: &str = "^(?=.*[1-9])[0-9]+(\\.[0-9]+)?\\s*([bB]|[kKmMgGtT]([iI]?[bB])?)?/s$";
const PERCENTAGE: &str = "^(?!0*\\.?0*\\s*%$)[0-9]{1,2}(\\.[0-9]+)?\\s*%$";
const NAME: &str = "^[\\p{L}\\p{N}][\\p{L}\\p{N}_.-]*$";
const SCHEDULE: &str = "^(@[a-z]+|[^\\s/]\\S*(\\s+[^\\s/]\\S*){4})$";
const SECRET: &str = "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|command:\\s*\\[.+\\])$";
/// No password between a scheme and an `@`, nor named as a parameter.
const ADDRESS: &str = "^(?!.*://[^@/]*:[^@]+@)(?!.*[?& ;][Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]=.).+$";
/// A scheme that leads to no store. The rest of a location is left to the check.
const PLACE: &str =
    "^(?!(b2|swift|rclone|opendal):)(?!(?!(s3|azure|gs|sftp|rest|file|local):)[^:/]*://).+$";

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Version => json!({"const": 1}),
        Shape::Text => json!({"type": "string", "pattern": "\\S"}),
        Shape::Word | Shape::Scalar => json!({"type": ["string", "number", "boolean"]}),
        Shape::Duration => text(DURATION),
        Shape::Within => text(WITHIN),
        Shape::Rate => text(RATE),
        Shape::Percentage => text(PERCENTAGE),
        Shape::Count => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
        Shape::ExitCode => json!({"type": "integer", "minimum": 0, "maximum": 255}),
        Shape::Status => json!({"type": "integer", "minimum": 100, "maximum": 599}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Schedule => text(SCHEDULE),
        Shape::TimeZone => json!({"type": "string", "minLength": 1}),
        Shape::Date => text("^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
        Shape::Secret => json!({"anyOf": [text(SECRET), secret_command()]}),
        Shape::Address => text(ADDRESS),
        Shape::Place => json!({"allOf": [text(ADDRESS), text(PLACE)]}),
        Shape::PostgresUrl => {
            json!({"allOf": [text(ADDRESS), text("^postgres(ql)?://")]})
        }
        Shape::OneOf(words) => json!({"enum": words}),
        Shape::Any => json!({}),
        Shape::Argv => list(&Shape::Word, 1),
        Shape::List(item) => list(item, 0),
        Shape::OneOrMore(item) => json!({"anyOf": [self::shape(item), list(item, 1)]}),
        Shape::Map(keys, item) => map(*keys, item),
        Shape::Object(members) => object(members),
        Shape::TextOr(members) => {
            json!({"anyOf": [self::shape(&Shape::Text), object(members)]})
        }
        Shape::NoneOr(members) => json!({"anyOf": [{"const": "none"}, object(members)]}),
        Shape::Variant(variants) => {
            json!({"oneOf": variants.iter().map(object).collect::<Vec<_>>()})
        }
    }
}

fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn secret_command() -> Value {
    let command = list(&Shape::Word, 1);
    json!({
        "type": "object",
        "properties": {"command": command},
        "required": ["command"],
        "additionalProperties": false,
    })
}

fn list(item: &Shape, least: usize) -> Value {
    json!({"type": "array", "items": shape(item), "minItems": least})
}

fn map(keys: Keys, item: &Shape) -> Value {
    let names = match keys {
        Keys::Names => json!({"pattern": NAME, "maxLength": 100}),
        Keys::Texts => json!({}),
        Keys::Disruptions => json!({"enum": crate::fields::DISRUPTIONS}),
        Keys::Durations => json!({"pattern": DURATION}),
    };
    json!({"type": "object", "propertyNames": names, "additionalProperties": shape(item)})
}

fn object(object: &Object) -> Value {
    let properties: Map<String, Value> =
        object.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required = object.fields.iter().filter(|field| field.required).map(|field| field.name);
    let required: Vec<&str> = required.collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if let Some(members) = schema.as_object_mut().filter(|_| !object.one_of.is_empty()) {
        let choices = object.one_of.iter().map(|name| json!({"required": [name]}));
        members.insert("oneOf".into(), choices.collect());
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = shape(&field.shape);
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".into(), field.about.into());
    }
    schema
}
