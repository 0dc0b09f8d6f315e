use super::*;

fn code(name: &str) -> u8 {
    OPS.iter().position(|op| op.0 == name).unwrap() as u8
}

fn program(words: &str) -> (Vec<u8>, Vec<f64>) {
    let (mut ops, mut args) = (Vec::new(), Vec::new());
    for word in words.split_whitespace() {
        match word.parse::<f64>() {
            Ok(number) => args.push(number),
            Err(_) => ops.push(code(word)),
        }
    }
    (ops, args)
}

#[cfg(feature = "inspect")]
#[test]
fn every_operation_encodes_a_valid_module() {
    let (ops, args) = program(
        "score b h add q k sub mul add const 0.5 div param 65535 max param 0 min neg abs floor sqrt \
             h lookup 7 300 add const 1 lt const 2 le const 3 eq score const -1 select",
    );
    for shared in [false, true] {
        let module = encode(&ops, &args, shared).unwrap();
        let report = crate::inspect::inspect(&module, u32::from(shared) << 1).unwrap();
        assert!(report.contains("\"name\":\"tile\""), "{report}");
    }
}

#[test]
fn refuses_malformed_programs() {
    for (words, part) in [
        ("", "1 to 256"),
        ("add", "found 0"),
        ("score add", "found 1"),
        ("score q", "one value left"),
        ("const", "1 arguments, found 0"),
        ("lookup", "1 values on the stack"),
        ("q lookup 1", "2 arguments, found 1"),
        ("q lookup 1 0", "at least one"),
        ("q lookup 1 65536", "at most 65536"),
        ("param 65536", "at most 65536"),
        ("param 0.5", "non-negative integer"),
        ("param -1", "non-negative integer"),
        ("param NaN", "non-negative integer"),
        ("const NaN", "found NaN"),
        ("score 1", "no more arguments"),
    ] {
        let (ops, args) = program(words);
        let error = encode(&ops, &args, false).unwrap_err();
        assert!(error.contains(part), "{words}: {error}");
    }
    assert!(encode(&[22], &[], false).unwrap_err().contains("unknown code 22"));
    assert!(encode(&[0; 257], &[], false).unwrap_err().contains("1 to 256"));
    assert!(encode(&[0; 100], &[], false).unwrap_err().contains("at most 64"));
}
