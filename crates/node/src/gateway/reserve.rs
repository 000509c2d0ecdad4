//! What a cell needs of root before it can decide a request: asked for by the gateway, which then asks the cell
//! again ([`objects::allotment`]).

use crate::errand::{Answered, Errand};
use objects::allotment::{API_VERSION, Allotment, Given, Wanted};
use objects::kinds;
use objects::request::{Body, Options, Request, User, Verb};
use objects::status::Status;
use std::sync::Arc;

/// How often root is asked for one request: what it gave may be used by others before the cell is asked again.
pub const ROUNDS: usize = 8;

/// Asks root, in the name of `user` (the node's own), for what `request` wants.
pub fn question(request: &Request, wanted: &Wanted, user: Arc<User>) -> Option<Errand> {
    let (group, version) = API_VERSION.split_once('/')?;
    Some(Errand {
        user,
        verb: Verb::Create,
        kind: kinds::by_kind(group, version, "Allotment")?,
        namespace: None,
        name: Some(wanted.uid.as_str().into()),
        subresource: "reserve",
        options: Options { dry_run: request.options.dry_run, ..Options::default() },
        body: Body::Object { tree: wanted.tree(), strict: Vec::new() },
    })
}

/// The request once more, with what root answered.
///
/// # Errors
/// A refusal for the client, if root did not answer or knows no such namespace (any more). Nothing was executed.
pub fn with_answer(request: &Request, wanted: Wanted, answered: Answered) -> Result<Request, Box<Status>> {
    let allotment = match answered {
        Ok(tree) if tree["metadata"]["name"] == *wanted.uid => Allotment::of(&tree),
        // It was gone again before its answer could be made once more.
        Ok(_) => return Err(Box::new(Status::unavailable("the namespace is going: nothing was executed"))),
        Err(why) if why.code == 404 => return Err(why),
        Err(why) => {
            let why = format!(
                "root hands out addresses and node ports of services, and could not be asked: nothing was executed. {}",
                why.message
            );
            return Err(Box::new(Status::unavailable(&why)));
        }
    };
    let mut again = request.clone();
    again.options.given = Some(Arc::new(Given { wanted, allotment }));
    Ok(again)
}

/// Root was asked [`ROUNDS`] times, or for as long as a gateway asks, and others were always faster.
pub fn overtaken() -> Box<Status> {
    Box::new(Status::too_many_requests(
        "others took what root had given for this service, again and again: nothing was executed; try again",
        1,
    ))
}
