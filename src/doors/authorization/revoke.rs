//! `/oauth/revoke` (RFC 7009): any token that a grant ever issued, rotated ones too, ends the grant. A token of an app itself ends alone.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::client::{ClientRequest, TIME_TO_ARRIVE};
use crate::audit::{Action, Actor, Entry, Record};
use crate::id::Id;
use crate::inbound::event::Event;
use crate::inbound::grant::EndReason;
use crate::inbound::ib_app::IbApp;
use crate::instance::Instance;
use crate::oauth::error::{Code, WireError};
use crate::oauth::token::{Kind, digest_if};
use crate::oauth::token_request::required;
use crate::secret::Digest;
use crate::store::{Fault, Transaction, access_token, app_token, grant, ib_app, refresh_token};

/// What became of a revocation.
enum Judged {
    /// It was never ours, or is ours no more: that is what the client wants (RFC 7009 §2.2).
    Unknown,
    OtherClients {
        client: String,
        grant: Option<Id>,
        row: Entry,
    },
    /// A token without a grant is refused from now on.
    EndedAlone {
        client: String,
        app: Record,
        digest: Digest,
    },
    Ended {
        client: String,
        grant: Id,
        /// Not before this request.
        now: bool,
    },
}

/// POST /oauth/revoke
pub(super) async fn revoke(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let (mut client, read) = ClientRequest::read(&instance, request, TIME_TO_ARRIVE).await;
    let judged = async {
        let (form, claim) = read?;
        form.each_once(&["token", "token_type_hint"]).map_err(|doubled| WireError::new(Code::InvalidRequest, doubled.to_string()))?;
        // The hint is not needed: a token tells its kind.
        let token = required(&form, "token")?;
        let kinds = [(Kind::Access, digest_if(Kind::Access, token)), (Kind::Refresh, digest_if(Kind::Refresh, token))];
        let presented = Digest::of(token);
        client.judged(claim, move |transaction, app| judge(transaction, app, kinds, presented).map(Ok)).await
    };
    let answer = match judged.await {
        Err(error) => Err(error),
        Ok(Judged::Unknown) => Ok(()),
        Ok(Judged::OtherClients { client: name, grant, row }) => {
            client.tell(&Event::RevocationOfAnotherClient, &name, grant, Some(row));
            Err(WireError::new(Code::InvalidGrant, "the token was issued to another client").into())
        }
        Ok(Judged::EndedAlone { client: name, app, digest }) => {
            instance.tokens.end_token(digest);
            // An app may make and end as many as it likes.
            client.note(Actor::Client { client_id: name }, Entry::of(Action::TokenRevoked).on(app).token(digest));
            Ok(())
        }
        Ok(Judged::Ended { client: name, grant, now }) => {
            instance.tokens.end(grant);
            if now {
                client.tell(&Event::GrantRevoked, &name, Some(grant), None);
            }
            Ok(())
        }
    };
    match answer {
        Ok(()) => client.answer("{}".to_owned()),
        Err(error) => client.refuse(&error).await,
    }
}

/// What becomes of `app`'s wish to revoke the token of digest `presented`; of `kinds`, the one that it is has its digest.
fn judge(transaction: &Transaction<'_>, app: &IbApp, kinds: [(Kind, Option<Digest>); 2], presented: Digest) -> Result<Judged, Fault> {
    let owner = match kinds {
        [(_, Some(digest)), _] => access_token::owner(transaction, digest)?,
        [_, (_, Some(digest))] => refresh_token::owner(transaction, digest)?,
        [(_, None), (_, None)] => None,
    };
    let alone = match kinds {
        [(_, Some(digest)), _] if owner.is_none() => app_token::owner(transaction, digest)?.map(|owner| (digest, owner)),
        _ => None,
    };
    let client = app.client_id.clone();
    let of_another = |whose| Event::RevocationOfAnotherClient.row(whose).token(presented);
    if let Some((digest, owner)) = alone {
        if owner != app.id {
            let whose = ib_app::by_id(transaction, owner)?.map(|app| app.record());
            return Ok(Judged::OtherClients { client, grant: None, row: of_another(whose) });
        }
        app_token::end(transaction, digest)?;
        return Ok(Judged::EndedAlone { client, app: app.record(), digest });
    }
    Ok(match owner {
        None => Judged::Unknown,
        Some((grant, owner)) if owner != app.id => {
            Judged::OtherClients { client, grant: Some(grant), row: of_another(grant::record(transaction, grant)?) }
        }
        Some((grant, _)) => Judged::Ended { client, grant, now: grant::end(transaction, grant, EndReason::RevokedByClient)? },
    })
}
