//! Properties and header tables.

use lapin::protocol::basic::{AMQPProperties, parse_properties};
use lapin::types::AMQPValue;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::filter::Filter;
use super::super::properties::{Checked, REMOVED, check};
use super::{content, filtered, long, short, with_headers};

/// Parses a property list as lapin does.
fn parse(list: &[u8]) -> Option<AMQPProperties> {
    let (rest, properties) = parse_properties(list).ok()?;
    rest.is_empty().then_some(properties)
}

/// What lapin gets of a property list.
fn passed(list: &[u8]) -> Vec<u8> {
    match check(list, None) {
        Checked::Safe(_) => list.to_vec(),
        Checked::Rewritten(list, _) => list,
    }
}

fn header(properties: &AMQPProperties, name: &str) -> Option<AMQPValue> {
    properties.headers().as_ref()?.inner().get(name).cloned()
}

/// The texts and the values that the generated properties consist of.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    Safe,
    Any,
}

fn text(which: Which) -> BoxedStrategy<Vec<u8>> {
    let utf8 = "[a-zä]{0,8}".prop_map(String::into_bytes);
    match which {
        Which::Safe => utf8.boxed(),
        Which::Any => prop_oneof![9 => utf8, 1 => vec(any::<u8>(), 0..9)].boxed(),
    }
}

/// A value with its type.
fn value(which: Which) -> BoxedStrategy<Vec<u8>> {
    let fixed = |tags: &'static [u8], bytes: usize| {
        (prop::sample::select(tags), vec(any::<u8>(), bytes))
            .prop_map(|(tag, bytes)| [vec![tag], bytes].concat())
    };
    let plain = prop_oneof![
        fixed(b"V", 0),
        fixed(b"tbB", 1),
        fixed(b"sUu", 2),
        fixed(b"Iif", 4),
        fixed(b"D", 5),
        fixed(b"lLdT", 8),
        (
            prop::sample::select(b"Sx".as_slice()),
            vec(any::<u8>(), 0..20)
        )
            .prop_map(|(tag, bytes)| [vec![tag], long(&bytes)].concat()),
    ];
    let plain = match which {
        Which::Safe => plain.boxed(),
        Which::Any => prop_oneof![19 => plain, 1 => vec(any::<u8>(), 0..9)].boxed(),
    };
    let depth = if which == Which::Safe { 6 } else { 12 };
    plain
        .prop_recursive(depth, 60, 4, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4)
                    .prop_map(|values| [vec![b'A'], long(&values.concat())].concat()),
                entries(which, inner).prop_map(|table| [vec![b'F'], long(&table)].concat()),
            ]
        })
        .boxed()
}

fn entries(
    which: Which,
    value: impl Strategy<Value = Vec<u8>> + 'static,
) -> impl Strategy<Value = Vec<u8>> {
    let entry = (text(which), value).prop_map(|(name, value)| [short(&name), value].concat());
    vec(entry, 0..4).prop_map(|entries| entries.concat())
}

/// A property list: any of the properties, in their order.
fn property_list(which: Which) -> impl Strategy<Value = Vec<u8>> {
    let headers = entries(which, value(which)).prop_map(|table| long(&table));
    let texts = vec(text(which).prop_map(|text| short(&text)), 14);
    (any::<u16>(), headers, texts, any::<u64>()).prop_map(|(flags, headers, texts, time)| {
        let flags = flags & !0b11;
        let mut list = flags.to_be_bytes().to_vec();
        for (at, text) in texts.iter().enumerate() {
            if flags & (1 << (15 - at)) != 0 {
                match at {
                    2 => list.extend(&headers),
                    3 | 4 => list.push(2),
                    9 => list.extend(time.to_be_bytes()),
                    _ => list.extend(text),
                }
            }
        }
        list
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2_000)
    })]

    #[test]
    fn lapin_can_parse_whatever_the_guard_lets_through(
        list in prop_oneof![property_list(Which::Any), vec(any::<u8>(), 0..200)],
        body in prop::option::of(any::<u64>()),
    ) {
        let passed = match check(&list, body) {
            Checked::Safe(_) => list,
            Checked::Rewritten(list, _) => list,
        };
        prop_assert!(parse(&passed).is_some(), "{passed:?}");
    }

    #[test]
    fn properties_that_are_safe_pass_unchanged(list in property_list(Which::Safe)) {
        prop_assert!(parse(&list).is_some());
        prop_assert!(matches!(check(&list, None), Checked::Safe(_)));
    }

    #[test]
    fn a_rewritten_list_says_so_and_a_publisher_can_not_forge_that(
        list in property_list(Which::Any),
    ) {
        if let Checked::Rewritten(first, _) = check(&list, None) {
            let properties = parse(&first).unwrap();
            prop_assert!(header(&properties, REMOVED).is_some());
            let Checked::Rewritten(second, _) = check(&first, None) else {
                panic!("a publisher can forge {REMOVED}");
            };
            let second = parse(&second).unwrap();
            prop_assert_eq!(second.user_id(), properties.user_id());
        }
    }

    #[test]
    fn where_the_stream_is_cut_makes_no_difference(
        list in property_list(Which::Any),
        piece in 1_usize..60,
        room in 1_usize..60,
    ) {
        let stream = [content(1, 0, &list), content(2, 0, b"\0\0")].concat();
        let (output, _) = filtered(&mut Filter::new(None), &stream, piece, room);
        prop_assert_eq!(output, [content(1, 0, &passed(&list)), content(2, 0, b"\0\0")].concat());
    }
}

/// A table inside a table, or an array inside an array, as deep as fits these bytes.
fn nested(kind: u8, bytes: usize) -> Vec<u8> {
    // Built from the outside: for each level its type and the length of what follows.
    let prefix: &[u8] = if kind == b'F' { b"\0F" } else { b"A" };
    let level = prefix.len() + 4;
    let levels = bytes / level;
    let mut table = Vec::new();
    for left in (0..levels).rev() {
        if kind == b'A' && table.is_empty() {
            table.push(0);
        }
        table.extend(prefix);
        table.extend(u32::try_from(left * level).unwrap().to_be_bytes());
    }
    table
}

#[test]
fn the_deepest_nesting_that_fits_a_frame_needs_a_small_part_of_a_threads_stack() {
    for kind in *b"FA" {
        for bytes in [30, 60, 6_000, 16_000, 100_000, 131_000] {
            // lapin's and tokio's threads have 2 MiB.
            let parsing = std::thread::Builder::new().stack_size(128 * 1024);
            let parsing = parsing.spawn(move || {
                let list = with_headers(&nested(kind, bytes));
                let properties = parse(&passed(&list)).unwrap();
                let is_whole = bytes == 30;
                assert_eq!(
                    header(&properties, REMOVED).is_none(),
                    is_whole,
                    "{kind} {bytes}"
                );
                // lapin formats and clones them too.
                drop(format!("{:?}", properties.clone()));
            });
            parsing.unwrap().join().unwrap();
        }
    }
}

#[test]
fn what_is_removed_is_named_and_the_rest_stays() {
    let good = [short(b"good"), b"S".to_vec(), long(b"yes")].concat();
    let after = [short(b"after"), b"t\x01".to_vec()].concat();
    let table = |entry: &[u8]| [good.as_slice(), entry, &after].concat();
    let too_many = b"\x01aV".repeat(255);
    for (bad, stays, reason) in [
        ([short(b"n\xff"), b"V".to_vec()].concat(), true, "UTF-8"),
        (
            [short(b"x-voice-otp-removed"), b"V".to_vec()].concat(),
            true,
            "begins with",
        ),
        (
            [short(b"deep"), b"F".to_vec(), long(&nested(b'F', 60))].concat(),
            true,
            "deeper than 8",
        ),
        // What follows an unknown type can't be found.
        (
            [short(b"what"), b"?".to_vec()].concat(),
            false,
            "type that is not known",
        ),
        (
            [short(b"short"), b"S\0\0\x01\0".to_vec()].concat(),
            false,
            "type that is not known",
        ),
    ] {
        let list = with_headers(&table(&bad));
        let properties = parse(&passed(&list)).unwrap();
        assert_eq!(
            header(&properties, "good"),
            Some(AMQPValue::LongString("yes".into()))
        );
        assert_eq!(header(&properties, "after").is_some(), stays, "{reason}");
        let Some(AMQPValue::LongString(removed)) = header(&properties, REMOVED) else {
            panic!("{reason}: the reason is missing");
        };
        assert!(removed.to_string().contains(reason), "{removed}");
    }
    for large in [
        too_many,
        [short(b"long"), b"S".to_vec(), long(&b"x".repeat(16_400))].concat(),
    ] {
        let properties = parse(&passed(&with_headers(&table(&large)))).unwrap();
        assert_eq!(properties.headers().as_ref().unwrap().inner().len(), 1);
        assert!(header(&properties, REMOVED).is_some());
    }
    // A property that isn't UTF-8 is absent; a forged user id isn't repaired to another one.
    let list = [b"\x88\x10".as_slice(), b"\x04text", b"\x05", b"\x02a\xff"].concat();
    let properties = parse(&passed(&list)).unwrap();
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "text");
    assert_eq!(
        (properties.priority(), properties.user_id()),
        (&Some(5), &None)
    );
}
