//! Expressions and what comes of them.

use serde_json::json;

use super::*;

fn env() -> Env {
    let map = || Type::map(Type::String, Type::Int);
    Env::new([("x", Type::Dyn), ("n", Type::Int), ("m", map()), ("words", Type::list(Type::String))])
}

fn variables() -> Vec<(&'static str, Value)> {
    let x = json!({"a": {"b": 1}, "list": [1, 2, 3], "text": "abc", "half": 0.5, "none": null});
    vec![
        ("x", Value::from(&x)),
        ("n", Value::Int(7)),
        ("m", Value::map([("one", Value::Int(1)), ("two", Value::Int(2))])),
        ("words", vec!["b".into(), "a".into()].into()),
    ]
}

/// What an expression gives, or why it gives nothing.
fn run(text: &str) -> String {
    match env().compile(text) {
        Err(error) => error.issues[0].what.clone(),
        Ok(program) => match program.run(&variables(), 100_000) {
            Ok(value) => value.to_string(),
            Err(error) => error.to_string(),
        },
    }
}

#[test]
fn expressions_mean_what_the_specification_says() {
    let cases = [
        // Literals and operators.
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("-(1 + 2) % 2", "-1"),
        ("0x10 + 1", "17"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1.5e1 + .5", "15.5"),
        (r#""a\n\x41\u00e9\101" + r"\n" + '''b'c'''"#, "a\nA\u{e9}A\\nb'c"),
        ("size(b'\\xff\\x00')", "2"),
        ("1 < 2 && 2u >= 2 && 1 < 1.5", "true"),
        ("!!true", "true"),
        ("n == 7 ? 'yes' : 'no'", "yes"),
        ("1 in [1, 2] && !('x' in m) && 'one' in m // a comment", "true"),
        ("[1, 2] + [3] == [1, 2, 3]", "true"),
        ("x.list[0] == 1u && x.half == 0.5", "true"),
        ("type(1) == int && type(x) == map", "true"),
        // What fails beside what decides does not count.
        ("x.nothing == 1 || true", "true"),
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 && false", "false"),
        ("x.nothing == 1 || false", "no such key: nothing"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("x.list[3]", "index out of bounds: 3"),
        ("x.text + 1", "no such overload: _+_"),
        // Fields and optional values.
        ("has(x.a.b) && !has(x.a.c)", "true"),
        ("x.a['b']", "1"),
        ("x.?a.b.orValue(5) + x.?c.b.orValue(5)", "6"),
        ("x[?'a'].hasValue()", "true"),
        ("words[?5].orValue('z')", "z"),
        ("[?x.?nothing, 1, ?optional.of(2)]", "[1, 2]"),
        ("{?'a': x.?nothing, 'b': 1}", "{b: 1}"),
        ("x.?a.optMap(a, a.b + 1).value()", "2"),
        ("optional.none().or(optional.of(3)).value()", "3"),
        ("optional.ofNonZeroValue('').hasValue()", "false"),
        // Macros.
        ("[1, 2, 3].all(i, i > 0) && [1, 2].exists(i, i == 2) && [1, 2].exists_one(i, i == 2)", "true"),
        ("[1, 2, 3].filter(i, i > 1).map(i, i * 2)", "[4, 6]"),
        ("[1, 2, 3].map(i, i > 1, i * 2)", "[4, 6]"),
        ("m.all(k, m[k] > 0) && m.exists(k, v, k == 'two' && v == 2)", "true"),
        ("[5, 6].transformList(i, v, i + v)", "[5, 7]"),
        ("m.transformMap(k, v, v > 1, v * 10)", "{two: 20}"),
        ("[[1, 2], [3]].exists(l, l.all(i, i == 3))", "true"),
        ("[0, 1].exists(i, 1 / i == 1)", "true"),
        ("cel.bind(y, n + 1, y * y)", "64"),
    ];
    for (text, expected) in cases {
        assert_eq!(run(text), expected, "{text}");
    }
}

#[test]
fn libraries_do_what_upstreams_do() {
    let cases = [
        ("'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.matches('^h.*o$')", "true"),
        ("'a,b,c'.split(',').join('-') + 'x'.upperAscii()", "a-b-cX"),
        ("'héllo'.indexOf('l') + 'héllo'.lastIndexOf('l')", "5"),
        ("'héllo'.substring(1, 3)", "\u{e9}l"),
        ("'abc'.replace('b', 'd') + ' x '.trim()", "adcx"),
        ("'a1b22'.findAll('[0-9]+')", "[1, 22]"),
        ("[1, 2, 3].sum() + [3, 1].min() + ['b', 'a'].indexOf('a')", "8"),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", "true"),
        (
            "quantity('1Gi').compareTo(quantity('1024Mi')) == 0 && quantity('2k').isGreaterThan(quantity('1500'))",
            "true",
        ),
        ("quantity('1500m').add(1).asApproximateFloat()", "2.5"),
        ("isQuantity('1Zi')", "false"),
        ("semver('1.2.0-rc.1').isLessThan(semver('1.2.0')) && semver('v1.2', true).minor() == 2", "true"),
        ("isSemver('1.2')", "false"),
        ("duration('1h30m').getMinutes() + int('5')", "95"),
        ("timestamp('2024-02-29T12:00:00Z') - duration('24h') < timestamp('2024-02-29T00:00:00Z')", "true"),
        ("timestamp('2024-02-29T12:00:00Z').getMonth()", "1"),
        ("string(bytes('a')) + string(1) + string(true)", "a1true"),
        ("base64.encode(b'hi') + string(base64.decode('aGk='))", "aGk=hi"),
    ];
    for (text, expected) in cases {
        assert_eq!(run(text), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("", "Syntax error: mismatched input '<EOF>' expecting an expression"),
        ("1 +", "Syntax error: mismatched input '<EOF>' expecting an expression"),
        ("n n", "Syntax error: mismatched input 'n' expecting <EOF>"),
        ("'abc", "Syntax error: token recognition error at: ''abc'"),
        ("n = 1", "Syntax error: token recognition error at: '='"),
        ("package", "reserved identifier: package"),
        ("y", "undeclared reference to 'y' (in container '')"),
        ("f(1)", "undeclared reference to 'f' (in container '')"),
        ("n.f()", "undeclared reference to 'f' (in container '')"),
        ("n == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("words.startsWith('a')", "found no matching overload for 'startsWith' applied to 'list(string).(string)'"),
        ("n.a", "type 'int' does not support field selection"),
        ("true && 1", "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        (
            "n.all(i, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("has(n)", "invalid argument to has() macro"),
        ("m.all(1, true)", "argument must be a simple name"),
    ];
    for (text, expected) in cases {
        assert_eq!(run(text), expected, "{text}");
    }
    let error = env().compile("n == 1 &&\n  foo").unwrap_err();
    let shown = "ERROR: <input>:2:3: undeclared reference to 'foo' (in container '')\n |   foo\n | ..^";
    assert_eq!(error.to_string(), shown);
}

#[test]
fn nothing_takes_the_stack_or_the_processor() {
    let deep = [
        format!("{}1{}", "(".repeat(5000), ")".repeat(5000)),
        format!("{}1{}", "[".repeat(5000), "]".repeat(5000)),
        format!("1{}", " + 1".repeat(5000)),
        format!("x{}", ".a".repeat(5000)),
        format!("{}1", "true ? 1 : ".repeat(1000)),
        format!("{}1", "-(".repeat(5000)),
    ];
    for text in deep {
        let error = env().compile(&text).unwrap_err();
        assert!(error.issues[0].what.starts_with("expression recursion limit exceeded"), "{}", error.issues[0].what);
    }
    let long = vec!["n == 7"; 1500].join(" || ");
    assert_eq!(run(&long), "true");
    let list = format!("[{}]", (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(", "));
    let loops = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, a + b + c + d >= 0))))");
    let program = env().compile(&loops).unwrap();
    assert!(program.cost(64) > 100_000_000);
    assert_eq!(program.run(&variables(), 100_000), Err(RunError::TooExpensive));
    let doubled = (0..40).fold("'ab'".to_owned(), |text, _| format!("cel.bind(s, {text}, s + s)"));
    assert_eq!(run(&doubled), "actual cost limit exceeded");
}

fn gpu() -> Value {
    let attributes = json!({
        "model": {"string": "a100"}, "numa": {"int": 1}, "ecc": {"bool": true},
        "gpu.example.com/version": {"version": "1.2.3"}, "other.example.com/model": {"string": "b"},
    });
    device::device("gpu.example.com", &attributes, &json!({"memory": {"value": "40Gi"}}), false).unwrap()
}

#[test]
fn devices_are_selected() {
    let cases: [(&str, Result<bool, &str>); 12] = [
        ("device.driver == 'gpu.example.com'", Ok(true)),
        ("device.attributes['gpu.example.com'].model == 'a100'", Ok(true)),
        ("device.attributes['other.example.com'].model == 'b'", Ok(true)),
        ("device.attributes['gpu.example.com'].numa > 1", Ok(false)),
        ("device.attributes['gpu.example.com'].ecc", Ok(true)),
        ("device.attributes['gpu.example.com'].version.isGreaterThan(semver('1.0.0'))", Ok(true)),
        ("device.capacity['gpu.example.com'].memory.compareTo(quantity('32Gi')) >= 0", Ok(true)),
        ("'other.example.com' in device.attributes && !('third.example.com' in device.attributes)", Ok(true)),
        ("cel.bind(gpu, device.attributes['gpu.example.com'], gpu.numa == 1 && gpu.?none.orValue(true))", Ok(true)),
        ("has(device.attributes['third.example.com'].x)", Ok(false)),
        ("device.attributes['third.example.com'].x == 1", Err("no such key: x")),
        ("device.attributes['gpu.example.com'].model", Err("expression returned string, expected bool")),
    ];
    for (text, expected) in cases {
        let selector = device::Selector::compile(text).unwrap();
        let answer = selector.matches(&gpu()).map_err(|error| error.to_string());
        assert_eq!(answer, expected.map_err(str::to_owned), "{text}");
    }
}

#[test]
fn what_cannot_select_is_refused() {
    let list = format!("[{}]", (0..120).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let cases = [
        ("device.driver".to_owned(), "must evaluate to bool or the unknown type, not string"),
        (
            "device.name == 'a'".to_owned(),
            "compilation failed: ERROR: <input>:1:7: undefined field 'name'\n | device.name == 'a'\n | ......^",
        ),
        (
            "device.driver == 1".to_owned(),
            "compilation failed: ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(string, int)'\n | device.driver == 1\n | ..............^",
        ),
        (format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c > -1)))"), "too complex, exceeds cost limit"),
    ];
    for (text, expected) in cases {
        assert_eq!(device::Selector::compile(&text).unwrap_err().to_string(), expected, "{text}");
    }
}
