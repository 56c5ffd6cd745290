//! Everything that the rows say of one peer, read together.

use rusqlite::Connection;

use super::{Fault, Seals, handshake, held_token, ob_app, peer, ticket};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::outbound::handshake::Stage;
use crate::outbound::link::{Facts, Holding, OpenRequest, RequestEnd};
use crate::outbound::peer::Auth;
use crate::outbound::ticket::Fate;

/// The facts of a peer; `None` when there is no such peer.
pub fn facts(connection: &Connection, seals: &Seals, epoch: i64, id: Id) -> Result<Option<Facts>, Fault> {
    let Some(peer) = peer::by_id(connection, seals, id)? else { return Ok(None) };
    let ob_app = match &peer.auth {
        Auth::OAuth { ob_app, .. } => ob_app::by_id(connection, seals, *ob_app)?,
        Auth::Basic(_) | Auth::None => None,
    };
    let (metadata, unlinked) = peer::metadata_and_unlinked(connection, id)?;
    let metadata = metadata.filter(|metadata| ob_app.as_ref().is_none_or(|app| metadata.is_of(&app.server)));
    let holding = match (held_token::of_peer(connection, seals, epoch, id)?, held_token::broken(connection, id)?) {
        (Some(held), _) => Holding::Tokens(Box::new(held)),
        (None, Some(broken)) => Holding::Broken(broken),
        (None, None) => Holding::Nothing { unlinked },
    };
    let (request, ended) = request(connection, seals, epoch, id)?;
    // What was over before the peer was unlinked says nothing of what it is now.
    let is_old = |at: Timestamp| unlinked.is_some_and(|unlinked| at < unlinked);
    let request = request.filter(|request| !is_old(request.made_at));
    let ended = ended.filter(|ended| !is_old(ended.at));
    Ok(Some(Facts { peer, ob_app, metadata, holding, request, ended, trouble: None, is_refused: false }))
}

/// The request URL that is out, or how the last one ended.
fn request(connection: &Connection, seals: &Seals, epoch: i64, peer: Id) -> Result<(Option<OpenRequest>, Option<RequestEnd>), Fault> {
    let Some(ticket) = ticket::latest(connection, epoch, peer)? else { return Ok((None, None)) };
    let open = |expires_at, opened| (Some(OpenRequest { made_at: ticket.made_at, expires_at, opened }), None);
    let handshake = match ticket.fate {
        Fate::Replaced => return Ok((None, None)),
        Fate::Open => return Ok(open(ticket.expires_at, false)),
        Fate::Used { handshake } => handshake::by_id(connection, seals, epoch, handshake)?,
    };
    let ended = |at, what| (None, Some(RequestEnd { at, what }));
    Ok(match handshake.map(|handshake| (handshake.expires_at, handshake.stage)) {
        Some((expires_at, Stage::Pressed { .. } | Stage::Exchanging { .. })) => open(expires_at, true),
        Some((_, Stage::Declined { at, words })) => {
            let words = words.map(|words| format!(": {words}")).unwrap_or_default();
            ended(at, format!("somebody at the peer declined {at}{words}"))
        }
        Some((_, Stage::Failed { at, why })) => ended(at, format!("the last attempt to link failed {at}: {why}")),
        Some((_, Stage::Linked { .. } | Stage::Replaced)) | None => (None, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::metadata;
    use crate::outbound::ob_app::{ObApp, Server};
    use crate::store::{Transaction, sample, temporary};

    #[tokio::test]
    async fn c2_what_one_issuer_said_of_itself_says_nothing_of_another() {
        let (_directory, store) = temporary();
        let (seals, epoch) = (store.seals().clone(), store.epoch());
        let judge = move |transaction: &Transaction<'_>| {
            let linked = sample::linked_peer(transaction, &seals, epoch, "https://two.example", "t1")?;
            let document = br#"{"issuer":"https://old.example","token_endpoint":"https://old.example/token"}"#;
            let said = metadata::judge("https://old.example", document).expect("metadata");
            peer::set_metadata(transaction, linked.id, Some(&said))?;
            let mut known = Vec::new();
            for issuer in ["https://old.example", "https://new.example"] {
                let app = ob_app::by_id(transaction, &seals, Id::from_bytes([1; 16]))?.expect("it is there");
                ob_app::update(transaction, &seals, &ObApp { server: Server::Issuer(issuer.to_owned()), ..app })?;
                let facts = facts(transaction, &seals, epoch, linked.id)?.expect("it is there");
                known.push(facts.metadata.is_some());
            }
            Ok(known)
        };
        assert_eq!(store.write(judge).await.expect("written"), [true, false]);
    }
}
