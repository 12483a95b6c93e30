//! Test vectors from Twilio's own libraries, and signatures that must be rejected.

use super::*;

const TOKEN: &str = "12345";
const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const JSON_URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2\
    &bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
const JSON: &str = r#"{"property": "value", "boolean": true}"#;

fn params(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn call() -> Vec<(String, String)> {
    params(&[
        ("To", "+18005551212"),
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+14158675309"),
        ("Digits", "1234"),
        ("From", "+14158675309"),
    ])
}

/// Checks that `signature` signs the URL `signed`, and is accepted for a request to `requested`.
#[track_caller]
fn check(signed: &str, requested: &str, params: &[(String, String)], signature: &str) {
    assert_eq!(sign(TOKEN, signed, params), signature, "signing {signed}");
    assert!(
        verify(&[TOKEN], signed, params, signature),
        "verifying {signed}"
    );
    assert!(
        verify(&[TOKEN], requested, params, signature),
        "verifying {requested}"
    );
}

#[test]
fn an_https_url_is_signed_without_its_port() {
    check(
        URL,
        "https://mycompany.com:1234/myapp.php?foo=1&bar=2",
        &call(),
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    );
    check(
        URL,
        "https://mycompany.com:443/myapp.php?foo=1&bar=2",
        &call(),
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    );
}

#[test]
fn a_signature_with_the_standard_port_is_accepted() {
    check(
        "https://mycompany.com:443/myapp.php?foo=1&bar=2",
        URL,
        &call(),
        "kvajT1Ptam85bY51eRf/AJRuM3w=",
    );
    let plain = "http://mycompany.com/myapp.php?foo=1&bar=2";
    check(
        "http://mycompany.com:80/myapp.php?foo=1&bar=2",
        plain,
        &call(),
        "0ZXoZLH/DfblKGATFgpif+LLRf4=",
    );
}

#[test]
fn a_signature_over_plain_http_keeps_its_port() {
    let url = "http://mycompany.com:1234/myapp.php?foo=1&bar=2";
    check(url, url, &call(), "Zmvh+3yNM1Phv2jhDCwEM3q5ebU=");
    let bare = "http://mycompany.com/myapp.php?foo=1&bar=2";
    check(
        bare,
        "http://mycompany.com:80/myapp.php?foo=1&bar=2",
        &call(),
        "OyGYPqTF6ztdbRNCvuQO/oPvqQ4=",
    );
    assert!(!verify(
        &[TOKEN],
        url,
        &call(),
        "OyGYPqTF6ztdbRNCvuQO/oPvqQ4="
    ));
}

#[test]
fn an_https_url_signed_with_another_port_is_accepted() {
    let url = "https://mycompany.com:1234/myapp.php?foo=1&bar=2";
    check(url, url, &call(), "CYn1h0gLBdNxDGkKJg6hYohgeD8=");
}

#[test]
fn repeated_names_count_once_per_value_in_sorted_order() {
    let repeated = params(&[
        ("Sid", "CA123"),
        ("SidAccount", "AC123"),
        ("Digits", "5678"),
        ("Digits", "1234"),
        ("Digits", "1234"),
    ]);
    check(URL, URL, &repeated, "IK+Dwps556ElfBT0I3Rgjkr1wJU=");
    let signature = "83O6e2vORAoJHUNzJjDWN1jz+BA=";
    let one = ("MessagingBinding.Address", "+1325xxxxxxx");
    let other = ("MessagingBinding.Address", "+1415xxxxxxx");
    check(URL, URL, &params(&[one, other]), signature);
    check(URL, URL, &params(&[other, one]), signature);
}

#[test]
fn a_json_body_is_signed_by_its_hash_in_the_query() {
    check(JSON_URL, JSON_URL, &[], "a9nBmqA0ju/hNViExpshrM61xv4=");
    assert!(verify_json(
        &[TOKEN],
        JSON_URL,
        JSON.as_bytes(),
        "a9nBmqA0ju/hNViExpshrM61xv4="
    ));

    let empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let with_port = format!("https://mycompany.com:443/myapp.php?foo=1&bar=2&bodySHA256={empty}");
    let without = format!("https://mycompany.com/myapp.php?foo=1&bar=2&bodySHA256={empty}");
    check(&with_port, &without, &[], "Ldidvp12m26NI7eqEvxnEpkd9Hc=");
    assert!(verify_json(
        &[TOKEN],
        &without,
        b"{}",
        "Ldidvp12m26NI7eqEvxnEpkd9Hc="
    ));

    let alone = JSON_URL.replace("foo=1&bar=2&", "");
    check(&alone, &alone, &[], "y77kIzt2vzLz71DgmJGsen2scGs=");
    assert!(verify_json(
        &[TOKEN],
        &alone,
        JSON.as_bytes(),
        "y77kIzt2vzLz71DgmJGsen2scGs="
    ));
}

#[test]
fn another_json_body_is_rejected() {
    let signature = "a9nBmqA0ju/hNViExpshrM61xv4=";
    assert!(!verify_json(&[TOKEN], JSON_URL, b"{}", signature));
    assert!(!verify_json(
        &[TOKEN],
        URL,
        JSON.as_bytes(),
        &sign(TOKEN, URL, &[])
    ));

    let twice = format!("{JSON_URL}&{}", JSON_URL.rsplit('&').next().unwrap());
    assert!(verify_json(
        &[TOKEN],
        &twice,
        JSON.as_bytes(),
        &sign(TOKEN, &twice, &[])
    ));
    let mixed = format!("{JSON_URL}&bodySHA256=00");
    assert!(!verify_json(
        &[TOKEN],
        &mixed,
        JSON.as_bytes(),
        &sign(TOKEN, &mixed, &[])
    ));
}

#[test]
fn user_information_is_kept() {
    let url = "https://user:pass@mycompany.com/myapp.php?foo=1&bar=2";
    check(url, url, &call(), "CukzLTc1tT5dXEDIHm/tKBanW10=");
    let with_port = "https://user:pass@mycompany.com:443/myapp.php?foo=1&bar=2";
    check(with_port, url, &call(), "ZQFR1PTIZXF2MXB8ZnKCvnnA+rI=");
    let user_only = "https://user@mycompany.com/myapp.php?foo=1&bar=2";
    check(
        user_only,
        user_only,
        &call(),
        "2YRLlVAflCqxaNicjMpJcSTgzSs=",
    );
}

#[test]
fn a_signature_without_user_information_is_accepted() {
    check(
        URL,
        "https://user:pass@mycompany.com/myapp.php?foo=1&bar=2",
        &call(),
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    );
}

#[test]
fn an_apostrophe_in_the_query_may_have_been_signed_encoded() {
    let signed = format!("{URL}&Body=It%27s+amazing");
    check(
        &signed,
        &format!("{URL}&Body=It's+amazing"),
        &call(),
        "TfZzewPq8wqrGlMfyAud8+/IvJ0=",
    );
    let raw = format!("{URL}&Body=It's+amazing");
    check(&raw, &raw, &call(), "dsq4Ehbj6cs+KdTkpF5sSSplOWw=");
}

#[test]
fn the_example_of_the_security_guide_matches() {
    let url = "https://example.com/myapp.php?foo=1&bar=2";
    let params = params(&[
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+14158675310"),
        ("Digits", "1234"),
        ("From", "+14158675310"),
        ("To", "+18005551212"),
    ]);
    check(url, url, &params, "L/OH5YylLD5NRKLltdqwSvS0BnU=");
}

#[test]
fn the_fragment_is_not_signed() {
    check(
        &format!("{URL}#rc=3&rp=all"),
        URL,
        &call(),
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    );
    check(
        URL,
        &format!("{URL}#rc=3&rp=all"),
        &call(),
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    );
}

#[test]
fn a_tampered_parameter_is_rejected() {
    let signature = sign(TOKEN, URL, &call());
    let mut tampered = call();
    tampered[3].1 = "9999".to_owned();
    assert!(!verify(&[TOKEN], URL, &tampered, &signature));
    let mut extended = call();
    extended.push(("CallStatus".to_owned(), "completed".to_owned()));
    assert!(!verify(&[TOKEN], URL, &extended, &signature));
    assert!(!verify(
        &[TOKEN],
        "https://mycompany.com/other.php?foo=1&bar=2",
        &call(),
        &signature
    ));
}

#[test]
fn either_token_of_a_rotation_is_accepted_and_no_other() {
    let signature = sign(TOKEN, URL, &call());
    assert!(verify(&["67890", TOKEN], URL, &call(), &signature));
    assert!(!verify(&["67890"], URL, &call(), &signature));
    assert!(!verify(&[], URL, &call(), &signature));
}

#[test]
fn an_empty_signature_or_token_is_rejected() {
    assert!(!verify(&[TOKEN], URL, &call(), ""));
    assert!(!verify(&[""], URL, &call(), &sign("", URL, &call())));
}

#[test]
fn the_voice_product_signs_without_user_information_and_https_port() {
    assert_eq!(
        as_signed("https://user:pass@mycompany.com:1234/cb?x=1#rc=3"),
        "https://mycompany.com/cb?x=1"
    );
    assert_eq!(
        as_signed("http://user:pass@mycompany.com:1234/cb"),
        "http://mycompany.com:1234/cb"
    );
    assert_eq!(as_signed("http://[::1]:8080/cb"), "http://[::1]:8080/cb");
    assert_eq!(as_signed("https://[::1]/cb"), "https://[::1]/cb");
}
