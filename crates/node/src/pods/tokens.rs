//! ServiceAccount tokens of a pod, bound to it, asked for before it starts and again at four fifths of
//! their life or after a day.
//!
//! Source: the kubelet's `token/token_manager.go`.

use super::Cx;
use super::backoff::Retry;
use super::pod::Pod;
use super::post::Purpose;
use crate::errand::{Answered, Errand};
use base::{Time, Wall};
use objects::Tree;
use objects::kinds::by_resource;
use objects::kinds::tree::Fields;
use objects::request::{Body, Options, Verb};
use serde_json::json;
use std::time::Duration;

/// No token is kept longer than this.
const DAY: Duration = Duration::from_secs(24 * 3600);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Token {
    volume: String,
    source: usize,
    text: Option<String>,
    renew: Time,
    expires: Time,
    asking: bool,
    refused: Option<String>,
    retry: Retry,
}

/// The tokens of a pod.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<Token>);

impl Pod {
    /// The token of a projection, or why there is none; `None` while it is being asked for. One to be
    /// renewed is asked for meanwhile.
    pub(super) fn token(
        &mut self,
        cx: &mut Cx<'_>,
        (volume, source): (&str, usize),
        projection: &Tree,
    ) -> Option<Result<String, String>> {
        let now = cx.now.mono;
        let place = match self.volumes.tokens.0.iter().position(|t| t.volume == volume && t.source == source) {
            Some(place) => place,
            None => {
                self.volumes.tokens.0.push(Token {
                    volume: volume.to_owned(),
                    source,
                    text: None,
                    renew: Time::ZERO,
                    expires: Time::ZERO,
                    asking: false,
                    refused: None,
                    retry: Retry::default(),
                });
                self.volumes.tokens.0.len() - 1
            }
        };
        let uid = self.uid.clone();
        let body = self.token_request(projection);
        let tree = self.tree.clone();
        let token = self.volumes.tokens.0.get_mut(place)?;
        if !token.asking && token.renew <= now && token.retry.at <= now {
            token.asking = true;
            let errand = Errand {
                user: cx.shared.user.clone(),
                verb: Verb::Create,
                kind: by_resource("", "v1", "serviceaccounts")?,
                namespace: Some(tree.at("metadata").text("namespace").into()),
                name: Some(tree.at("spec").text("serviceAccountName").into()),
                subresource: "token",
                options: Options::default(),
                body,
            };
            cx.shared.post.send(now, Purpose::Token(uid, place), errand, cx.fx);
        }
        match (&token.text, &token.refused) {
            (Some(text), _) if now < token.expires => Some(Ok(text.clone())),
            (_, Some(why)) => Some(Err(format!("failed to fetch token: {why}"))),
            _ => None,
        }
    }

    fn token_request(&self, projection: &Tree) -> Body {
        let meta = self.tree.at("metadata");
        let mut spec = json!({
            "expirationSeconds": projection.int("expirationSeconds").unwrap_or(3600),
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": meta.text("name"), "uid": meta.text("uid"),
            },
        });
        if !projection.text("audience").is_empty() {
            spec["audiences"] = json!([projection.text("audience")]);
        }
        let tree = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        Body::Object { tree, strict: Vec::new() }
    }

    /// An errand came back.
    pub(super) fn token_answered(&mut self, cx: &mut Cx<'_>, place: usize, answer: Answered) {
        let now = cx.now;
        let Some(token) = self.volumes.tokens.0.get_mut(place) else { return };
        token.asking = false;
        let given = answer.map_err(|s| s.message).and_then(|tree| {
            let status = tree.at("status");
            let expires = Wall::parse_rfc3339(status.text("expirationTimestamp"));
            match (status.text("token"), expires) {
                ("", _) | (_, None) => Err("the answer to a TokenRequest holds no token".to_owned()),
                (text, Some(expires)) => Ok((text.to_owned(), expires)),
            }
        });
        match given {
            Ok((text, expires)) => {
                let life = expires.since(now.wall);
                token.text = Some(text);
                token.refused = None;
                token.retry.done();
                token.renew = now.mono + (life * 4 / 5).min(DAY);
                token.expires = now.mono + life;
                let renew = token.renew;
                self.volumes.changed();
                self.wake_at(renew);
            }
            Err(why) => {
                token.refused = Some(why);
                token.retry.failed(now.mono, RETRY_FIRST, RETRY_MOST);
                let at = token.retry.at;
                self.wake_at(at);
            }
        }
    }

    /// When a token is to be renewed.
    pub(super) fn next_token(&self) -> Option<Time> {
        self.volumes.tokens.0.iter().filter(|t| !t.asking).map(|t| t.renew.max(t.retry.at)).min()
    }
}
