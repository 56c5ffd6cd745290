//! Secrets at rest: sealed when we must show them again, else kept as a keyed hash or a digest.
//!
//! A sealed value is `key id (4) ‖ nonce (12) ‖ ciphertext and tag`, AES-256-GCM-SIV (RFC 8452), which forgives a nonce that comes twice.
//! Its place in the database is authenticated with it, so that it opens nowhere else. A keyed hash is `key id (4) ‖ HMAC-SHA-256 (32)`.
//! Each state key is only ever used through keys derived from it (HKDF-SHA-256), one per purpose.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use super::key_file::{KeyId, StateKey};
use crate::secret::SecretString;

const KEY_ID_LEN: usize = 4;

/// Where in the database a sealed value stands. The value opens in no other place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The table's name.
    pub table: &'static str,
    /// The column's name.
    pub column: &'static str,
    /// The row's primary key, as stored.
    pub row: &'a [u8],
}

/// A sealed value does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// It names a key that is not in the list.
    #[error("the value in {0} is sealed with a key that is not in the key list")]
    UnknownKey(&'static str),
    /// It was changed, cut, or moved from another place.
    #[error("the sealed value in {0} is damaged or belongs elsewhere")]
    Damaged(&'static str),
}

/// What a keyed hash says of a secret that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It is another secret.
    No,
    /// It is the secret.
    Yes,
    /// It is the secret, hashed with an older key: store [`Seals::hash`] of it anew.
    Stale,
}

/// The state keys in use. Clones share them; a rotation changes all.
#[derive(Clone)]
pub struct Seals {
    keys: Arc<ArcSwap<Vec<Key>>>,
}

/// The keys derived from one state key.
struct Key {
    id: KeyId,
    seal: RandomizedNonceKey,
    hash: hmac::Key,
    mac: hmac::Key,
    bound: hkdf::Prk,
    proof: [u8; 32],
}

impl Key {
    fn new(key: &StateKey) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"p2pid state key").extract(key.bytes.as_ref());
        let derived = |purpose: &[u8]| expand(&root, &[purpose]);
        Self {
            id: key.id,
            seal: aead_key(&derived(b"seal")),
            hash: hmac::Key::new(hmac::HMAC_SHA256, derived(b"hash").as_ref()),
            mac: hmac::Key::new(hmac::HMAC_SHA256, derived(b"mac").as_ref()),
            bound: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, derived(b"bound").as_ref()),
            proof: *derived(b"proof"),
        }
    }
}

impl Seals {
    /// From a list that is not empty; the first key seals.
    pub(super) fn new(keys: &[StateKey]) -> Self {
        Self { keys: Arc::new(ArcSwap::from_pointee(keys.iter().map(Key::new).collect())) }
    }

    /// Takes another list into use, everywhere at once.
    pub(super) fn replace(&self, keys: &[StateKey]) {
        self.keys.store(Arc::new(keys.iter().map(Key::new).collect()));
    }

    /// The ids of the list, with what proves to the database that they are the same keys as ever.
    pub(super) fn proofs(&self) -> Vec<(KeyId, [u8; 32])> {
        self.keys.load().iter().map(|key| (key.id, key.proof)).collect()
    }

    /// Seals `secret` for `place` with the first key.
    pub fn seal(&self, place: Place<'_>, secret: &[u8]) -> Vec<u8> {
        let keys = self.keys.load();
        let key = &keys[0];
        seal_with(&key.seal, key.id, place, secret)
    }

    /// Opens what was sealed for `place` with any key of the list.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealFault> {
        let keys = self.keys.load();
        let key = find(&keys, place, sealed)?;
        open_with(&key.seal, key.id, place, sealed)
    }

    /// As [`Seals::open`], for text.
    pub fn open_text(&self, place: Place<'_>, sealed: &[u8]) -> Result<SecretString, SealFault> {
        let opened = self.open(place, sealed)?;
        let text = std::str::from_utf8(&opened).map_err(|_| SealFault::Damaged(place.table))?;
        Ok(SecretString::from(text))
    }

    /// Seals `secret` so that it opens only for who knows all of `bound` too, such as a token that was presented. It cannot be sealed
    /// again with another key meanwhile, so this is for what does not live long.
    pub fn seal_bound(&self, place: Place<'_>, bound: &[&[u8]], secret: &[u8]) -> Vec<u8> {
        let keys = self.keys.load();
        let key = &keys[0];
        seal_with(&aead_key(&expand(&key.bound, &[&framed(bound)])), key.id, place, secret)
    }

    /// Opens what [`Seals::seal_bound`] sealed, given the same `bound`.
    pub fn open_bound(&self, place: Place<'_>, bound: &[&[u8]], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealFault> {
        let keys = self.keys.load();
        let key = find(&keys, place, sealed)?;
        open_with(&aead_key(&expand(&key.bound, &[&framed(bound)])), key.id, place, sealed)
    }

    /// The keyed hash of `secret` with the first key. `purpose` separates uses; `owner` ties it to a record.
    pub fn hash(&self, purpose: &'static str, owner: &[u8], secret: &[u8]) -> Vec<u8> {
        let keys = self.keys.load();
        let tag = hmac::sign(&keys[0].hash, &framed(&[purpose.as_bytes(), owner, secret]));
        [&keys[0].id.0, tag.as_ref()].concat()
    }

    /// Whether `stored` is the keyed hash of `secret`.
    pub fn verify(&self, purpose: &'static str, owner: &[u8], secret: &[u8], stored: &[u8]) -> Verified {
        let keys = self.keys.load();
        let Some((id, tag)) = stored.split_at_checked(KEY_ID_LEN) else { return Verified::No };
        let Some(position) = keys.iter().position(|key| key.id.0 == id) else { return Verified::No };
        match hmac::verify(&keys[position].hash, &framed(&[purpose.as_bytes(), owner, secret]), tag) {
            Ok(()) if position == 0 => Verified::Yes,
            Ok(()) => Verified::Stale,
            Err(_) => Verified::No,
        }
    }

    /// An authentication code of ours over `parts`, for what is given out and comes back, such as a form's token.
    pub fn mac(&self, purpose: &'static str, parts: &[&[u8]]) -> [u8; 32] {
        let keys = self.keys.load();
        mac_with(&keys[0], purpose, parts)
    }

    /// Whether `mac` is ours over `parts`, by any key of the list.
    pub fn is_mac(&self, purpose: &'static str, parts: &[&[u8]], mac: &[u8]) -> bool {
        self.keys.load().iter().any(|key| crate::secret::same(&mac_with(key, purpose, parts), mac))
    }
}

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.load().iter().map(|key| key.id)).finish()
    }
}

fn mac_with(key: &Key, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&key.mac);
    context.update(&framed(&[purpose.as_bytes()]));
    context.update(&framed(parts));
    context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn seal_with(key: &RandomizedNonceKey, id: KeyId, place: Place<'_>, secret: &[u8]) -> Vec<u8> {
    let mut text = Zeroizing::new(secret.to_vec());
    let aad = Aad::from(framed(&[place.table.as_bytes(), place.column.as_bytes(), place.row, &id.0]));
    let (nonce, tag) = key.seal_in_place_separate_tag(aad, &mut text).expect("sealing fails only for texts of many gigabytes");
    [&id.0, nonce.as_ref().as_slice(), &text, tag.as_ref()].concat()
}

fn open_with(key: &RandomizedNonceKey, id: KeyId, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealFault> {
    let damaged = SealFault::Damaged(place.table);
    let Some((nonce, text)) = sealed[KEY_ID_LEN..].split_first_chunk::<NONCE_LEN>() else { return Err(damaged) };
    let aad = Aad::from(framed(&[place.table.as_bytes(), place.column.as_bytes(), place.row, &id.0]));
    let mut text = Zeroizing::new(text.to_vec());
    match key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut text).map(|opened| opened.len()) {
        Ok(length) => {
            text.truncate(length);
            Ok(text)
        }
        Err(_) => Err(damaged),
    }
}

fn find<'k>(keys: &'k [Key], place: Place<'_>, sealed: &[u8]) -> Result<&'k Key, SealFault> {
    let id = sealed.get(..KEY_ID_LEN).ok_or(SealFault::Damaged(place.table))?;
    keys.iter().find(|key| key.id.0 == id).ok_or(SealFault::UnknownKey(place.table))
}

/// Parts with their lengths before them, so that no two lists of parts look the same.
fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

fn aead_key(bytes: &[u8; 32]) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes).expect("the algorithm takes keys of 32 bytes")
}

fn expand(root: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    let expanded = root.expand(info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(bytes.as_mut()));
    expanded.expect("32 bytes are within what HKDF gives");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { table: "peer", column: "token", row: b"row-1" };

    fn seals() -> (Vec<StateKey>, Seals) {
        let keys = vec![StateKey::generate(), StateKey::generate()];
        let seals = Seals::new(&keys);
        (keys, seals)
    }

    #[test]
    fn k5_a_sealed_value_opens_in_its_place_only() {
        let (_, seals) = seals();
        let sealed = seals.seal(PLACE, b"the secret");
        assert_eq!(seals.open(PLACE, &sealed).expect("opened").as_slice(), b"the secret");
        for place in [Place { table: "ob_app", ..PLACE }, Place { column: "other", ..PLACE }, Place { row: b"row-2", ..PLACE }] {
            assert_eq!(seals.open(place, &sealed), Err(SealFault::Damaged(place.table)));
        }
    }

    #[test]
    fn k5_a_sealed_value_shows_nothing_and_no_bit_of_it_can_change() {
        let (_, seals) = seals();
        let sealed = seals.seal(PLACE, b"the secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, seals.seal(PLACE, b"the secret"), "the nonce is random");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(seals.open(PLACE, &changed).is_err(), "position {position}");
            assert!(seals.open(PLACE, &sealed[..position]).is_err(), "length {position}");
        }
    }

    #[test]
    fn k5_the_first_key_seals_and_all_open() {
        let (keys, old) = seals();
        let sealed = old.seal(PLACE, b"the secret");
        let newer = [StateKey::generate(), keys.into_iter().next().expect("a key")];
        let seals = Seals::new(&newer);
        assert_eq!(seals.open(PLACE, &sealed).expect("opened").as_slice(), b"the secret");
        assert_eq!(seals.seal(PLACE, b"x")[..4], newer[0].id.0);
        assert_eq!(Seals::new(&newer[..1]).open(PLACE, &sealed), Err(SealFault::UnknownKey("peer")));
    }

    #[test]
    fn k5_a_bound_value_needs_what_it_is_bound_to() {
        let (_, seals) = seals();
        let sealed = seals.seal_bound(PLACE, &[b"token", b"grant"], b"the answer");
        assert_eq!(seals.open_bound(PLACE, &[b"token", b"grant"], &sealed).expect("opened").as_slice(), b"the answer");
        assert!(seals.open_bound(PLACE, &[b"tokengrant"], &sealed).is_err());
        assert!(seals.open(PLACE, &sealed).is_err());
    }

    #[test]
    fn k5_a_keyed_hash_knows_its_secret_and_says_when_its_key_is_old() {
        let (keys, old) = seals();
        let hash = old.hash("client secret", b"app", b"the secret");
        assert_eq!(old.verify("client secret", b"app", b"the secret", &hash), Verified::Yes);
        assert_eq!(old.verify("client secret", b"app", b"another", &hash), Verified::No);
        assert_eq!(old.verify("client secret", b"other", b"the secret", &hash), Verified::No);
        assert_eq!(old.verify("client secret", b"app", b"the secret", &hash[..3]), Verified::No);
        old.replace(&[StateKey::generate(), keys.into_iter().next().expect("a key")]);
        assert_eq!(old.verify("client secret", b"app", b"the secret", &hash), Verified::Stale);
    }

    #[test]
    fn a_mac_outlives_a_rotation() {
        let (keys, seals) = seals();
        let mac = seals.mac("form", &[b"session", b"path"]);
        seals.replace(&[StateKey::generate(), keys.into_iter().next().expect("a key")]);
        assert!(seals.is_mac("form", &[b"session", b"path"], &mac));
        assert!(!seals.is_mac("form", &[b"session", b"other"], &mac));
        assert!(!seals.is_mac("other", &[b"session", b"path"], &mac));
    }
}
