//! ServiceAccount tokens: believed only whole, in time, from a trusted key, for whom they were made.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::Wall;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{BoundObject, TokenAuthority, TokenRefusal, TokenRequest, TrustedTokenKey};
use scratch::Scratch;
use serde_json::{Value, json};
use std::time::Duration;

const NOW: Wall = Wall(1_769_846_400_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn open(data: &Scratch, now: Wall) -> TokenAuthority {
    TokenAuthority::open(&data.path().join("tokens.json"), ISSUER, now).unwrap()
}

fn request(audience: &str) -> TokenRequest {
    let object = |name: &str| BoundObject { name: name.into(), uid: format!("uid-of-{name}") };
    TokenRequest {
        audiences: vec![audience.into()],
        life: HOUR,
        warn_after: Some(Duration::from_secs(600)),
        namespace: "web".into(),
        service_account: object("default"),
        pod: Some(object("pod-1")),
        secret: None,
        node: Some(object("node-1")),
    }
}

fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_token_says_what_kubernetes_tokens_say() {
    let data = Scratch::new();
    let tokens = open(&data, NOW);
    let (token, claims) = tokens.issue(&request(ISSUER), NOW).unwrap();
    let kid = &tokens.trusted()[0].id;
    assert_eq!(part(&token, 0), json!({"alg": "ES256", "kid": kid}));
    assert_eq!(
        part(&token, 1),
        json!({
            "aud": [ISSUER], "exp": 1_769_850_000, "iat": 1_769_846_400, "iss": ISSUER, "jti": claims.jti,
            "kubernetes.io": {
                "namespace": "web",
                "node": {"name": "node-1", "uid": "uid-of-node-1"},
                "pod": {"name": "pod-1", "uid": "uid-of-pod-1"},
                "serviceaccount": {"name": "default", "uid": "uid-of-default"},
                "warnafter": 1_769_847_000,
            },
            "nbf": 1_769_846_400, "sub": "system:serviceaccount:web:default",
        })
    );
    assert_eq!(tokens.verify(&token, &[], NOW).unwrap(), claims);
    assert!(!claims.is_stale(NOW + Duration::from_secs(600)) && claims.is_stale(NOW + Duration::from_secs(601)));
}

#[test]
fn a_token_is_good_in_its_time_and_for_its_audience_only() {
    let data = Scratch::new();
    let tokens = open(&data, NOW);
    let (token, _) = tokens.issue(&request("vault"), NOW).unwrap();
    let vault = ["vault".to_owned()];
    let minute = Duration::from_secs(60);
    let second = Duration::from_secs(1);
    assert!(tokens.verify(&token, &vault, NOW - minute).is_ok(), "a minute's difference of clocks is forgiven");
    assert!(tokens.verify(&token, &vault, NOW + HOUR + minute).is_ok());
    assert!(matches!(tokens.verify(&token, &vault, NOW - minute - second), Err(TokenRefusal::NotYet(_))));
    assert!(matches!(tokens.verify(&token, &vault, NOW + HOUR + minute + second), Err(TokenRefusal::Expired(_))));
    let refused = tokens.verify(&token, &[], NOW).unwrap_err();
    assert!(matches!(refused, TokenRefusal::Audience { .. }), "{refused}");
}

#[test]
fn no_bit_of_a_token_can_be_changed() {
    let data = Scratch::new();
    let tokens = open(&data, NOW);
    let (token, _) = tokens.issue(&request(ISSUER), NOW).unwrap();
    for at in 0..token.len() {
        for other in ["A", "x", ".", "é", ""] {
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            if changed != token {
                assert!(tokens.verify(&changed, &[], NOW).is_err(), "byte {at} as {other:?}");
            }
        }
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_verified() {
    let data = Scratch::new();
    let tokens = open(&data, NOW);
    let (token, _) = tokens.issue(&request(ISSUER), NOW).unwrap();
    let (_, rest) = token.split_once('.').unwrap();
    let kid = &tokens.trusted()[0].id;
    for header in [
        json!({"alg": "none", "kid": kid}),
        json!({"alg": "HS256", "kid": kid}),
        json!({"alg": "es256", "kid": kid}),
        json!({"alg": "ES256"}),
        json!({"alg": "ES256", "kid": kid, "crit": ["b64"]}),
    ] {
        let changed = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
        let refused = tokens.verify(&changed, &[], NOW).unwrap_err();
        assert!(matches!(refused, TokenRefusal::NotOurs(_)), "{header}: {refused}");
    }
    for rubbish in ["", ".", "..", "a.b.c", "a.b", &"x".repeat(100_000)] {
        assert!(matches!(tokens.verify(rubbish, &[], NOW), Err(TokenRefusal::NotOurs(_))));
    }
}

#[test]
fn another_issuers_token_is_told_from_a_bad_one() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let tokens = open(&ours, NOW);
    let stranger = open(&theirs, NOW);
    let (token, _) = stranger.issue(&request(ISSUER), NOW).unwrap();
    assert!(matches!(tokens.verify(&token, &[], NOW), Err(TokenRefusal::UnknownKey(_))));
    let elsewhere = TokenAuthority::open(&theirs.path().join("tokens.json"), "https://else.where", NOW).unwrap();
    let (token, _) = elsewhere.issue(&request(ISSUER), NOW).unwrap();
    assert!(matches!(tokens.verify(&token, &[], NOW), Err(TokenRefusal::NotOurs(_))));
}

#[test]
fn a_former_keys_tokens_are_good_until_they_expire() {
    let data = Scratch::new();
    let tokens = open(&data, NOW);
    let (old, _) = tokens.issue(&TokenRequest { life: DAY * 1000, ..request(ISSUER) }, NOW).unwrap();
    assert!(!tokens.rotation_is_due(NOW + DAY * 89) && tokens.rotation_is_due(NOW + DAY * 90));
    tokens.rotate(NOW + HOUR).unwrap();
    let (new, _) = tokens.issue(&request(ISSUER), NOW + HOUR).unwrap();
    assert_ne!(part(&old, 0)["kid"], part(&new, 0)["kid"]);

    let reopened = open(&data, NOW + HOUR);
    for authority in [&tokens, &reopened] {
        assert!(authority.verify(&old, &[], NOW + HOUR * 2).is_ok());
        assert!(authority.verify(&new, &[], NOW + HOUR * 2).is_ok());
        assert_eq!(authority.jwks()["keys"].as_array().unwrap().len(), 2);
    }
    // A thousand days were asked, the bound is a year and a day.
    assert!(tokens.verify(&old, &[], NOW + DAY * 366).is_ok());
    assert!(tokens.verify(&old, &[], NOW + DAY * 367).is_err());
    tokens.rotate(NOW + DAY * 400).unwrap();
    assert_eq!(tokens.trusted().len(), 2, "the first key is forgotten, the second still trusted");
}

#[test]
fn another_keepers_key_signs_for_its_namespaces_only() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let tokens = open(&ours, NOW);
    let keeper = open(&theirs, NOW);
    let (token, _) = keeper.issue(&request(ISSUER), NOW).unwrap();
    for (namespace, believed) in [("web", true), ("other", false)] {
        let mut key = keeper.trusted().remove(0);
        key.namespaces = Some([namespace.to_owned()].into());
        tokens.trust(vec![key]);
        assert_eq!(tokens.verify(&token, &[], NOW).is_ok(), believed, "{namespace}");
    }
    tokens.rotate(NOW).unwrap();
    assert_eq!(tokens.trusted().len(), 3, "rotation keeps the others");
    tokens.trust(Vec::new());
    assert!(matches!(tokens.verify(&token, &[], NOW), Err(TokenRefusal::UnknownKey(_))));
}

#[test]
fn a_single_audience_may_be_written_without_a_list() {
    let claims = json!({
        "aud": "one", "exp": 2, "iat": 1, "iss": "i", "jti": "j", "nbf": 1, "sub": "s",
        "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "a", "uid": "u"}},
    });
    let read: identity::ServiceAccountClaims = serde_json::from_value(claims).unwrap();
    assert_eq!(read.aud, ["one"]);
}

#[test]
fn discovery_names_the_keys_where_they_are() {
    let data = Scratch::new();
    let tokens = open(&data, NOW);
    // The shape observed from kube-apiserver 1.37.0 with default settings, with this mesh's algorithm.
    assert_eq!(
        tokens.discovery("192.0.2.2:16443").to_string(),
        concat!(
            r#"{"issuer":"https://kubernetes.default.svc.cluster.local","#,
            r#""jwks_uri":"https://192.0.2.2:16443/openid/v1/jwks","response_types_supported":["id_token"],"#,
            r#""subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}"#
        )
        .parse::<Value>()
        .unwrap()
        .to_string()
    );
    let key = &tokens.jwks()["keys"][0];
    assert_eq!(key["kid"], json!(tokens.trusted()[0].id));
    for coordinate in ["x", "y"] {
        assert_eq!(URL_SAFE_NO_PAD.decode(key[coordinate].as_str().unwrap()).unwrap().len(), 32);
    }
}

#[test]
fn a_nodes_token_key_travels_and_its_tokens_are_believed_elsewhere() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let here = TokenAuthority::open(&ours.path().join("tokens.json"), ISSUER, NOW).unwrap();
    let there = TokenAuthority::open(&theirs.path().join("tokens.json"), ISSUER, NOW).unwrap();
    there.rotate(NOW).unwrap();
    let mut told = there.own();
    assert_eq!(told.len(), 2);
    told[0].namespaces = Some(["web".to_owned()].into());
    for key in &told {
        let bytes = key.encode();
        assert_eq!(&TrustedTokenKey::decode(&bytes).unwrap(), key, "its id included");
        for cut in 0..bytes.len() {
            assert!(TrustedTokenKey::decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }
    here.trust(told);
    assert_eq!(here.own().len(), 1);
    let (token, _) = there.issue(&request(ISSUER), NOW).unwrap();
    assert!(here.verify(&token, &[], NOW).is_ok());

    // Kept for ever: peers of this release say this.
    let point = [&[4][..], &[0xab; 64]].concat();
    let bytes = [&[8, 1][..], &point, &[1, 1, 3], b"web", &[1, 0xe8, 0x07]].concat();
    let key = TrustedTokenKey::decode(&bytes).unwrap();
    assert_eq!(key.encode(), bytes);
    assert_eq!((key.point, key.namespaces, key.until), (point, Some(["web".to_owned()].into()), Some(Wall(1000))));
}
