//! Validates an untrusted WASM module against an explicit feature set and says what it asks for and offers.

use crate::text::{push_string, quote};
use std::fmt::Write;
use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{
    FuncType, FuncValidatorAllocations, Parser, Payload, TypeRef, ValType, ValidPayload, Validator,
    WasmFeatures,
};

/// Flag bits of [`inspect`].
pub const RELAXED_SIMD: u32 = 1;
pub const THREADS: u32 = 2;
pub const MEMORY64: u32 = 4;

/// What every engine this library runs on implements, and nothing else.
const BASE: WasmFeatures = WasmFeatures::MVP
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SIMD);

const MAX_IMPORTS: usize = 1000;
const MAX_EXPORTS: usize = 1000;

/// Returns `{"imports":[…],"exports":[…],"memories":[…],"tables":[…],"start":bool,"functions":n,
/// "code_bytes":n,"data_bytes":n,"custom_bytes":n}`.
pub fn inspect(bytes: &[u8], flags: u32) -> Result<String, String> {
    let mut features = BASE;
    features.set(WasmFeatures::RELAXED_SIMD, flags & RELAXED_SIMD != 0);
    features.set(WasmFeatures::THREADS, flags & THREADS != 0);
    features.set(WasmFeatures::MEMORY64, flags & MEMORY64 != 0);
    run(bytes, features).map_err(|e| format!("Cannot accept the WASM module: {e}"))
}

#[derive(Default)]
struct Report {
    /// Module, name and type; the type is resolved when the types are known.
    imports: Vec<(String, String, TypeRef)>,
    start: bool,
    code_bytes: u64,
    data_bytes: u64,
    custom_bytes: u64,
}

fn run(bytes: &[u8], features: WasmFeatures) -> Result<String, String> {
    let text = |e: wasmparser::Error| quote_error(&e);
    let mut validator = Validator::new_with_features(features);
    let mut parser = Parser::new(0);
    parser.set_features(features);
    let mut allocations = FuncValidatorAllocations::default();
    let mut report = Report::default();
    for payload in parser.parse_all(bytes) {
        let payload = payload.map_err(text)?;
        match &payload {
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    let import = import.map_err(text)?;
                    if report.imports.len() == MAX_IMPORTS {
                        return Err(format!("expected at most {MAX_IMPORTS} imports"));
                    }
                    report.imports.push((import.module.into(), import.name.into(), import.ty));
                }
            }
            Payload::ExportSection(section) if section.count() as usize > MAX_EXPORTS => {
                return Err(format!("expected at most {MAX_EXPORTS} exports, found {}", section.count()));
            }
            Payload::StartSection { .. } => report.start = true,
            Payload::CodeSectionStart { size, .. } => report.code_bytes += u64::from(*size),
            Payload::DataSection(section) => report.data_bytes += section.range().end - section.range().start,
            Payload::CustomSection(section) => report.custom_bytes += section.data().len() as u64,
            _ => {}
        }
        match validator.payload(&payload).map_err(text)? {
            ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(allocations);
                function.validate(&body).map_err(text)?;
                allocations = function.into_allocations();
            }
            ValidPayload::End(types) => return encode(&report, types.as_ref()),
            _ => {}
        }
    }
    Err(String::from("expected the end of the module"))
}

fn quote_error(e: &wasmparser::Error) -> String {
    // The message may repeat names of the module.
    let message = quote(&e.to_string());
    message.trim_matches('"').into()
}

fn encode(report: &Report, types: TypesRef) -> Result<String, String> {
    let mut out = String::from("{\"imports\":[");
    for (i, (module, name, ty)) in report.imports.iter().enumerate() {
        separate(&mut out, i);
        out.push_str("{\"module\":");
        push_string(&mut out, module);
        let entity = match *ty {
            TypeRef::Func(at) | TypeRef::FuncExact(at) => EntityType::Func(types.core_type_at_in_module(at)),
            TypeRef::Table(t) => EntityType::Table(t),
            TypeRef::Memory(m) => EntityType::Memory(m),
            TypeRef::Global(g) => EntityType::Global(g),
            TypeRef::Tag(_) => return Err(String::from("exception tags are not supported")),
        };
        out.push(',');
        push_entity(&mut out, name, entity, types)?;
    }
    out.push_str("],\"exports\":[");
    for (i, (name, entity)) in types.core_exports().into_iter().flatten().enumerate() {
        separate(&mut out, i);
        out.push('{');
        push_entity(&mut out, name, entity, types)?;
    }
    out.push_str("],\"memories\":[");
    for i in 0..types.memory_count() {
        separate(&mut out, i as usize);
        out.push('{');
        push_entity(&mut out, "", EntityType::Memory(types.memory_at(i)), types)?;
    }
    out.push_str("],\"tables\":[");
    for i in 0..types.table_count() {
        separate(&mut out, i as usize);
        out.push('{');
        push_entity(&mut out, "", EntityType::Table(types.table_at(i)), types)?;
    }
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "],\"start\":{},\"functions\":{},\"code_bytes\":{},\"data_bytes\":{},\"custom_bytes\":{}}}",
        report.start,
        types.function_count(),
        report.code_bytes,
        report.data_bytes,
        report.custom_bytes
    );
    Ok(out)
}

fn separate(out: &mut String, i: usize) {
    if i > 0 {
        out.push(',');
    }
}

/// `"name":…,"kind":…` and what the kind needs, then the closing brace.
fn push_entity(out: &mut String, name: &str, entity: EntityType, types: TypesRef) -> Result<(), String> {
    out.push_str("\"name\":");
    push_string(out, name);
    match entity {
        EntityType::Func(id) | EntityType::FuncExact(id) => {
            let ty: &FuncType = match types.get(id) {
                Some(sub) => sub.unwrap_func(),
                None => return Err(String::from("a function type is missing")),
            };
            out.push_str(",\"kind\":\"function\",\"params\":");
            push_types(out, ty.params());
            out.push_str(",\"results\":");
            push_types(out, ty.results());
        }
        EntityType::Memory(m) => {
            out.push_str(",\"kind\":\"memory\"");
            push_limits(out, m.initial, m.maximum);
            let _ = write!(out, ",\"shared\":{},\"memory64\":{}", m.shared, m.memory64);
        }
        EntityType::Table(t) => {
            let _ = write!(out, ",\"kind\":\"table\",\"element\":\"{}\"", ValType::Ref(t.element_type));
            push_limits(out, t.initial, t.maximum);
        }
        EntityType::Global(g) => {
            let _ =
                write!(out, ",\"kind\":\"global\",\"type\":\"{}\",\"mutable\":{}", g.content_type, g.mutable);
        }
        EntityType::Tag(_) => return Err(String::from("exception tags are not supported")),
    }
    out.push('}');
    Ok(())
}

/// Limits beyond 2^53 lose their last digits in JSON numbers, which no check depends on.
fn push_limits(out: &mut String, initial: u64, maximum: Option<u64>) {
    let _ = write!(out, ",\"initial\":{initial},\"maximum\":");
    let _ = match maximum {
        Some(maximum) => write!(out, "{maximum}"),
        None => out.write_str("null"),
    };
}

fn push_types(out: &mut String, types: &[ValType]) {
    out.push('[');
    for (i, ty) in types.iter().enumerate() {
        let _ = write!(out, "{}\"{ty}\"", if i > 0 { "," } else { "" });
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

    fn module(sections: &[&[u8]]) -> Vec<u8> {
        let mut bytes = EMPTY.to_vec();
        for section in sections {
            bytes.push(section[0]);
            bytes.push(section.len() as u8 - 1);
            bytes.extend(&section[1..]);
        }
        bytes
    }

    #[test]
    fn lists_what_it_finds() {
        // (import "env" "memory" (memory 1)) (func (export "f")) (start 0)
        let bytes = module(&[
            b"\x01\x01\x60\x00\x00",
            b"\x02\x01\x03env\x06memory\x02\x00\x01",
            b"\x03\x01\x00",
            b"\x07\x01\x01f\x00\x00",
            b"\x08\x00",
            b"\x0a\x01\x02\x00\x0b",
        ]);
        let report = inspect(&bytes, 0).unwrap();
        for part in [
            r#"{"module":"env","name":"memory","kind":"memory","initial":1,"maximum":null,"shared":false,"memory64":false}"#,
            r#"{"name":"f","kind":"function","params":[],"results":[]}"#,
            r#""start":true,"functions":1,"code_bytes":3,"data_bytes":0,"custom_bytes":0}"#,
        ] {
            assert!(report.contains(part), "{report}");
        }
    }

    #[test]
    fn features_are_off_unless_asked_for() {
        let shared = module(&[b"\x05\x01\x03\x01\x02"]);
        assert!(inspect(&shared, 0).unwrap_err().contains("threads"));
        assert!(inspect(&shared, THREADS).unwrap().contains("\"shared\":true"));
        let wide = module(&[b"\x05\x01\x04\x01"]);
        assert!(inspect(&wide, 0).is_err());
        assert!(inspect(&wide, MEMORY64).is_ok());
        // (func (result v128) v128.const 0 v128.const 0 v128.const 0 f32x4.relaxed_madd)
        let mut body = vec![0x0a, 1, 60, 0];
        for _ in 0..3 {
            body.extend([0xfd, 0x0c]);
            body.extend([0; 16]);
        }
        body.extend([0xfd, 0x85, 0x02, 0x0b]);
        body[2] = body.len() as u8 - 3;
        let relaxed = module(&[b"\x01\x01\x60\x00\x01\x7b", b"\x03\x01\x00", &body]);
        assert!(inspect(&relaxed, 0).unwrap_err().contains("relaxed"));
        assert!(inspect(&relaxed, RELAXED_SIMD).is_ok());
        // Two memories, an exception tag, a GC type.
        assert!(inspect(&module(&[b"\x05\x02\x00\x01\x00\x01"]), 7).is_err());
        assert!(inspect(&module(&[b"\x01\x01\x60\x00\x00", b"\x0d\x01\x00\x00"]), 7).is_err());
        assert!(inspect(&module(&[b"\x01\x01\x5f\x00"]), 7).is_err());
    }

    #[test]
    fn refuses_garbage() {
        assert!(inspect(b"", 0).is_err());
        assert!(inspect(b"\0asm", 0).is_err());
        assert!(inspect(b"\0asm\x0d\0\x01\0", 0).is_err()); // a component
        assert!(inspect(EMPTY, 0).is_ok());
        let bytes = module(&[b"\x01\x01\x60\x00\x00", b"\x03\x01\x00", b"\x0a\x01\x03\x00\x1a\x0b"]);
        assert!(inspect(&bytes, 0).is_err()); // drop on an empty stack
        for cut in 9..bytes.len() {
            assert!(inspect(&bytes[..cut], 0).is_err() || cut == 14, "{cut}");
        }
    }
}
