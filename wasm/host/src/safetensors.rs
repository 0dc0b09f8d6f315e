//! The strict reading of a safetensors header.
//!
//! Everything a later reader relies on is proved here: names are unique, dtypes known, shapes and spans
//! agree without overflow, and the tensors tile the data exactly, without overlap or hole.

use crate::json::{is_reserved, Reader, MAX_SAFE};
use crate::text::{push_string, quote};
use std::borrow::Cow;
use std::fmt::Write;

const MAX_TENSORS: usize = 1_000_000;
const MAX_NAME_BYTES: usize = 1024;
const MAX_RANK: usize = 32;
const MAX_METADATA: usize = 100_000;

/// Known dtypes and the bytes of one element.
const DTYPES: [(&str, u64); 13] = [
    ("F64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("I64", 8),
    ("I32", 4),
    ("I16", 2),
    ("I8", 1),
    ("U64", 8),
    ("U32", 4),
    ("U16", 2),
    ("U8", 1),
    ("BOOL", 1),
];

struct Tensor<'a> {
    name: Cow<'a, str>,
    dtype: usize,
    shape: Vec<u64>,
    begin: u64,
    end: u64,
}

/// Checks `header` against a file with `data_len` bytes of data and returns
/// `{"metadata":{…},"tensors":[[name,dtype,[…shape],begin,end],…]}`, sorted by offset.
pub fn check(header: &[u8], data_len: f64) -> Result<String, String> {
    if !(data_len >= 0.0 && data_len <= MAX_SAFE as f64 && data_len.fract() == 0.0) {
        return Err(String::from(
            "Cannot read the header: the length of the data is not an integer up to 2^53",
        ));
    }
    let data_len = data_len as u64;
    let text = core::str::from_utf8(header)
        .map_err(|e| format!("Cannot read the header as JSON: byte {} is not UTF-8", e.valid_up_to()))?;
    if header.first() != Some(&b'{') {
        return Err(String::from("Cannot read the header as JSON: it must begin with \"{\""));
    }
    let (metadata, mut tensors) =
        parse(text).map_err(|e| format!("Cannot read the safetensors header: {e}"))?;
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for pair in tensors.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(format!("Cannot read tensor {}: the name comes twice", quote(&pair[0].name)));
        }
    }
    // A zero-size tensor sorts before its neighbour at the same offset, so both are accepted.
    tensors.sort_by_key(|t| (t.begin, t.end));
    check_layout(&tensors, data_len)?;
    Ok(encode(&metadata, &tensors))
}

type Metadata<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

fn parse(text: &str) -> Result<(Metadata<'_>, Vec<Tensor<'_>>), String> {
    let mut json = Reader::new(text);
    let mut metadata: Option<Metadata> = None;
    let mut tensors = Vec::new();
    json.expect(b'{', "an object")?;
    if !json.take(b'}') {
        loop {
            let name = json.string("a tensor name")?;
            if is_reserved(&name) || name.is_empty() || name.len() > MAX_NAME_BYTES {
                return Err(format!(
                    "expected a tensor name of 1 to {MAX_NAME_BYTES} bytes that is not reserved, found {}",
                    quote(&name)
                ));
            }
            json.expect(b':', "\":\"")?;
            if name == "__metadata__" {
                if metadata.is_some() {
                    return Err(String::from("__metadata__ comes twice"));
                }
                metadata = Some(parse_metadata(&mut json).map_err(|e| format!("__metadata__: {e}"))?);
            } else {
                if tensors.len() == MAX_TENSORS {
                    return Err(format!("expected at most {MAX_TENSORS} tensors"));
                }
                let tensor = parse_tensor(&mut json).map_err(|e| format!("tensor {}: {e}", quote(&name)))?;
                tensors.push(Tensor { name, ..tensor });
            }
            if !json.take(b',') {
                break;
            }
        }
        json.expect(b'}', "\",\" or \"}\"")?;
    }
    json.end()?;
    Ok((metadata.unwrap_or_default(), tensors))
}

fn parse_metadata<'a>(json: &mut Reader<'a>) -> Result<Metadata<'a>, String> {
    let mut map: Metadata = Vec::new();
    json.expect(b'{', "an object of strings")?;
    if json.take(b'}') {
        return Ok(map);
    }
    loop {
        let key = json.string("a name")?;
        if is_reserved(&key) {
            return Err(format!("the name {} is reserved", quote(&key)));
        }
        if map.len() == MAX_METADATA {
            return Err(format!("expected at most {MAX_METADATA} entries"));
        }
        json.expect(b':', "\":\"")?;
        map.push((key, json.string("a string value")?));
        if !json.take(b',') {
            break;
        }
    }
    json.expect(b'}', "\",\" or \"}\"")?;
    map.sort_unstable();
    for pair in map.windows(2) {
        if pair[0].0 == pair[1].0 {
            return Err(format!("the name {} comes twice", quote(&pair[0].0)));
        }
    }
    Ok(map)
}

/// One entry: exactly `dtype`, `shape` and `data_offsets`, in any order. The name is left empty.
fn parse_tensor<'a>(json: &mut Reader<'a>) -> Result<Tensor<'a>, String> {
    let (mut dtype, mut shape, mut offsets) = (None, None, None);
    json.expect(b'{', "an object with dtype, shape and data_offsets")?;
    if !json.take(b'}') {
        loop {
            let key = json.string("dtype, shape or data_offsets")?;
            json.expect(b':', "\":\"")?;
            let fresh = match &*key {
                "dtype" => dtype.replace(parse_dtype(json)?).is_none(),
                "shape" => shape.replace(parse_list(json, "a dimension", MAX_RANK)?).is_none(),
                "data_offsets" => offsets.replace(parse_list(json, "an offset", 2)?).is_none(),
                _ => {
                    return Err(format!("expected only dtype, shape and data_offsets, found {}", quote(&key)))
                }
            };
            if !fresh {
                return Err(format!("{} comes twice", quote(&key)));
            }
            if !json.take(b',') {
                break;
            }
        }
        json.expect(b'}', "\",\" or \"}\"")?;
    }
    let (Some(dtype), Some(shape), Some(offsets)) = (dtype, shape, offsets) else {
        return Err(String::from("expected dtype, shape and data_offsets, at least one is missing"));
    };
    let [begin, end] = offsets[..] else {
        return Err(format!("expected two data_offsets, found {}", offsets.len()));
    };
    let tensor = Tensor { name: Cow::Borrowed(""), dtype, shape, begin, end };
    check_span(&tensor)?;
    Ok(tensor)
}

fn parse_dtype(json: &mut Reader) -> Result<usize, String> {
    let found = json.string("a dtype")?;
    DTYPES.iter().position(|(known, _)| *known == found).ok_or_else(|| {
        let known: Vec<&str> = DTYPES.iter().map(|d| d.0).collect();
        format!("expected a dtype of {}, found {}", known.join(", "), quote(&found))
    })
}

fn parse_list(json: &mut Reader, what: &str, max: usize) -> Result<Vec<u64>, String> {
    let mut list = Vec::new();
    json.expect(b'[', "a list of non-negative integers")?;
    if json.take(b']') {
        return Ok(list);
    }
    loop {
        if list.len() == max {
            return Err(format!("expected at most {max} numbers in a list"));
        }
        list.push(json.integer(&format!("{what}, a non-negative integer"))?);
        if !json.take(b',') {
            break;
        }
    }
    json.expect(b']', "\",\" or \"]\"")?;
    Ok(list)
}

fn check_span(tensor: &Tensor) -> Result<(), String> {
    let (dtype, size) = DTYPES[tensor.dtype];
    // Zero dimensions are left out of the product, so that strides computed from a shape cannot overflow either.
    let mut bytes = size;
    for dim in tensor.shape.iter().filter(|dim| **dim != 0) {
        bytes = bytes.checked_mul(*dim).filter(|b| *b <= MAX_SAFE).ok_or_else(|| {
            format!("expected at most 2^53 bytes, found shape {:?} of {dtype}", tensor.shape)
        })?;
    }
    if tensor.shape.contains(&0) {
        bytes = 0;
    }
    if tensor.end < tensor.begin || tensor.end - tensor.begin != bytes {
        return Err(format!(
            "expected data_offsets that span {bytes} bytes for shape {:?} of {dtype}, found [{}, {}]",
            tensor.shape, tensor.begin, tensor.end
        ));
    }
    Ok(())
}

fn check_layout(tensors: &[Tensor], data_len: u64) -> Result<(), String> {
    let mut at = 0;
    for tensor in tensors {
        let refuse = |what: &str| {
            Err(format!(
                "Cannot read tensor {}: {what} (data_offsets [{}, {}], the tensors before it end at {at}, the file has {data_len} bytes of data)",
                quote(&tensor.name), tensor.begin, tensor.end
            ))
        };
        if tensor.begin < at {
            return refuse("it overlaps the tensor before it");
        }
        if tensor.begin > at {
            return refuse("there is a hole before it");
        }
        if tensor.end > data_len {
            return refuse("it ends after the end of the file");
        }
        at = tensor.end;
    }
    if at != data_len {
        return Err(format!(
            "Cannot read the safetensors file: the tensors end at byte {at} of the data, but there are {data_len} bytes"
        ));
    }
    Ok(())
}

fn encode(metadata: &Metadata, tensors: &[Tensor]) -> String {
    let mut out = String::from("{\"metadata\":{");
    for (i, (key, value)) in metadata.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(&mut out, key);
        out.push(':');
        push_string(&mut out, value);
    }
    out.push_str("},\"tensors\":[");
    for (i, tensor) in tensors.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push('[');
        push_string(&mut out, &tensor.name);
        // Writing to a String cannot fail.
        let _ = write!(out, ",\"{}\",[", DTYPES[tensor.dtype].0);
        for (j, dim) in tensor.shape.iter().enumerate() {
            let _ = write!(out, "{}{dim}", if j > 0 { "," } else { "" });
        }
        let _ = write!(out, "],{},{}]", tensor.begin, tensor.end);
    }
    out.push_str("]}");
    out
}

#[cfg(test)]
#[path = "safetensors_test.rs"]
mod tests;
