use super::*;

fn ok(header: &str, len: f64) -> String {
    check(header.as_bytes(), len).unwrap()
}

fn refused(header: &str, len: f64, part: &str) {
    let error = check(header.as_bytes(), len).unwrap_err();
    assert!(error.contains(part), "{error:?} should contain {part:?}");
}

#[test]
fn accepts() {
    assert_eq!(ok("{}", 0.0), r#"{"metadata":{},"tensors":[]}"#);
    assert_eq!(
        ok(
            r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"__metadata__":{"format":"pt"},
                "a":{"shape":[],"data_offsets":[0,4],"dtype":"I32"},"z":{"dtype":"U8","shape":[0,3],"data_offsets":[4,4]}}   "#,
            12.0
        ),
        r#"{"metadata":{"format":"pt"},"tensors":[["a","I32",[],0,4],["z","U8",[0,3],4,4],["b","F32",[2],4,12]]}"#
    );
}

#[test]
fn refuses() {
    let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    refused(one, 7.0, "after the end");
    refused(one, 9.0, "there are 9 bytes");
    refused(one, f64::NAN, "length of the data");
    refused(one, 8.5, "length of the data");
    refused("", 0.0, "begin with");
    refused(" {}", 0.0, "begin with");
    refused("{", 0.0, "tensor name");
    refused("{}x", 0.0, "nothing after");
    refused("[]", 0.0, "begin with");
    for (entry, part) in [
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}"#, "found \"x\""),
        (r#"{"dtype":"F32","shape":[2]}"#, "missing"),
        (r#"{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}"#, "\"shape\" comes twice"),
        (r#"{"dtype":"F4","shape":[2],"data_offsets":[0,8]}"#, "F64, F32"),
        (r#"{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#, "dimension"),
        (r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#, "dimension"),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#, "span 8"),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}"#, "at most 2"),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0]}"#, "two data_offsets"),
        (r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}"#, "2^53"),
        (r#"{"dtype":"U8","shape":[9007199254740992,0,2],"data_offsets":[0,0]}"#, "2^53"),
        ("[]", "an object"),
    ] {
        refused(&format!("{{\"a\":{entry}}}"), 8.0, part);
        refused(&format!("{{\"a\":{entry}}}"), 8.0, "tensor \"a\"");
    }
    let entry = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    refused(&format!(r#"{{"a":{entry},"\u0061":{entry}}}"#), 8.0, "comes twice");
    refused(&format!(r#"{{"a":{entry},"b":{entry}}}"#), 8.0, "overlaps");
    refused(&format!(r#"{{"__proto__":{entry}}}"#), 8.0, "reserved");
    refused(&format!(r#"{{"":{entry}}}"#), 8.0, "1 to 1024");
    refused(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#, 16.0, "hole");
    refused(r#"{"__metadata__":{"a":1}}"#, 0.0, "string value");
    refused(r#"{"__metadata__":{"a":"","a":""}}"#, 0.0, "comes twice");
    refused(r#"{"__metadata__":{"constructor":""}}"#, 0.0, "reserved");
    refused(r#"{"__metadata__":{},"__metadata__":{}}"#, 0.0, "comes twice");
}
