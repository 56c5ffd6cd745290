// How a client says who it is: with a secret, or with an assertion that its key signed (RFC 7523, private_key_jwt).

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { writeFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { library, two, world } from '../world.mjs';
import { asked, client, discovered, linked, oauth, refused, refusedAsClient, register, status } from './registered.mjs';

const jose = await library('jose');
const ITSELF = ['--grant', 'client_credentials'];
const ALGORITHMS = ['Ed25519', 'ES256', 'PS256'];
let files = 0;

/** A key pair for an algorithm, and the set with its public half. */
export async function keyPair(algorithm, kid) {
  const pair = await jose.generateKeyPair(algorithm, { extractable: true });
  return { kid, key: pair.privateKey, jwk: { ...(await jose.exportJWK(pair.publicKey)), alg: algorithm, use: 'sig', kid } };
}

/** A file with the set of these public keys, for `--jwks`. */
export async function keySet(...pairs) {
  files += 1;
  const file = join(world.folder, `openid-client-${files}.jwks`);
  await writeFile(file, JSON.stringify({ keys: pairs.map((pair) => pair.jwk) }));
  return file;
}

/** The library's configuration for a client that signs. */
export async function signing(app, { kid, key }, options) {
  const authentication = oauth.PrivateKeyJwt(kid ? { key, kid } : key, options);
  return oauth.discovery(new URL(world.two.public_url), app.client_id, undefined, authentication, { algorithm: 'oauth2' });
}

/** A token of the client's own, which is good at the gateway. */
async function ownToken(config) {
  const token = await oauth.clientCredentialsGrant(config, { scope: 'p2pi' });
  assert.equal(token.scope ?? 'p2pi', 'p2pi');
  assert.equal(token.refresh_token, undefined);
  assert.equal(await status(config, token.access_token), 200);
  return token;
}

/** The client alone (RFC 6749 §4.4), in the one way that it is registered with and in no other. */
async function clientCredentials() {
  const ways = { client_secret_basic: oauth.ClientSecretBasic, client_secret_post: oauth.ClientSecretPost };
  for (const [method, authentication] of Object.entries(ways)) {
    const app = await register({ flags: [...ITSELF, '--auth-method', method], redirectUri: null });
    const config = await discovered(app, { authentication });
    await ownToken(config);
    await refused('invalid_scope', () => oauth.clientCredentialsGrant(config, { scope: 'p2pi more' }));
    await refused('invalid_target', () => oauth.clientCredentialsGrant(config, { resource: world.one.public_url }));
    for (const other of Object.values(ways).filter((way) => way !== authentication)) {
      const wrong = await discovered(app, { authentication: other });
      await refusedAsClient(() => oauth.clientCredentialsGrant(wrong));
    }
  }
}

async function clientCredentialsNotGranted() {
  const config = await client();
  await refused('unauthorized_client', () => oauth.clientCredentialsGrant(config));
}

async function secretInTheForm() {
  const config = await client({ authentication: oauth.ClientSecretPost });
  const token = await linked(config);
  const renewed = await oauth.refreshTokenGrant(config, token.refresh_token);
  assert.equal(await status(config, renewed.access_token), 200);
}

/** This library form-encodes the halves of Basic (RFC 6749 §2.3.1). */
async function awkwardSecret() {
  const awkward = 'per%20cent+plus/=:colon&amp';
  const app = await register({ secret: awkward });
  for (const authentication of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
    await linked(await discovered(app, { authentication, secret: awkward }));
  }
}

async function wrongSecret() {
  for (const authentication of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
    const app = await register();
    const wrong = await discovered(app, { authentication, secret: 'not the secret' });
    const { location, checks } = await asked(wrong);
    await refusedAsClient(() => oauth.authorizationCodeGrant(wrong, location, checks));
    await refusedAsClient(() => oauth.tokenIntrospection(wrong, 'any token'));
    await refusedAsClient(() => oauth.tokenRevocation(wrong, 'any token'));
    const right = await discovered(app, { authentication });
    await oauth.authorizationCodeGrant(right, location, checks);
  }
}

/** Both secrets are good while they overlap, and then the new one. */
async function secretRotated() {
  const app = await register();
  const old = await discovered(app);
  const token = await linked(old);
  const rotated = await two(['ib', 'rotate-secret', app.name, '--overlap', '2s']);
  const renewed = await discovered(rotated);
  const second = await oauth.refreshTokenGrant(old, token.refresh_token);
  const third = await oauth.refreshTokenGrant(renewed, second.refresh_token);
  await setTimeout(2200);
  await refusedAsClient(() => oauth.refreshTokenGrant(old, third.refresh_token));
  await oauth.refreshTokenGrant(renewed, third.refresh_token);
}

/** Every algorithm that both sides have, with and without the name of the key in the header. */
async function signedAssertions() {
  for (const algorithm of ALGORITHMS) {
    for (const kid of [undefined, 'a key']) {
      const pair = await keyPair(algorithm, kid);
      const app = await register({ flags: [...ITSELF, '--jwks', await keySet(pair)], redirectUri: null });
      assert.equal(app.client_secret ?? null, null);
      await ownToken(await signing(app, pair));
    }
  }
}

/** The code flow, and each endpoint that authenticates. */
async function signedEverywhere() {
  const pair = await keyPair('ES256', 'one');
  const app = await register({ flags: ['--jwks', await keySet(pair)] });
  const config = await signing(app, pair);
  const token = await linked(config, { pushed: true });
  const renewed = await oauth.refreshTokenGrant(config, token.refresh_token);
  assert.equal(await status(config, renewed.access_token), 200);
  assert.equal((await oauth.tokenIntrospection(config, renewed.access_token)).active, true);
  await oauth.tokenRevocation(config, renewed.refresh_token);
  assert.equal((await oauth.tokenIntrospection(config, renewed.access_token)).active, false);
}

/** One thing wrong with an assertion, and the client is not known by it. */
async function assertionsNotBelieved() {
  const [pair, other] = [await keyPair('ES256', 'one'), await keyPair('ES256', 'one')];
  const app = await register({ flags: [...ITSELF, '--jwks', await keySet(pair)], redirectUri: null });
  const changed = (change) => signing(app, pair, { [oauth.modifyAssertion]: (header, payload) => change(payload, header) });
  const wrong = [
    await signing(app, other),
    await changed((payload) => Object.assign(payload, { aud: `${world.two.public_url}/oauth/token` })),
    await changed((payload) => Object.assign(payload, { aud: world.one.public_url })),
    await changed((payload) => Object.assign(payload, { iss: 'somebody' })),
    await changed((payload) => Object.assign(payload, { exp: payload.iat - 60 })),
    await changed((payload) => delete payload.jti),
  ];
  for (const config of wrong) await refusedAsClient(() => oauth.clientCredentialsGrant(config));
  const repeated = await changed((payload) => Object.assign(payload, { jti: 'the same again' }));
  await ownToken(repeated);
  await refusedAsClient(() => oauth.clientCredentialsGrant(repeated));
  await ownToken(await signing(app, pair));
}

/** The client changes its key at a URL of its own, and two finds the new one there; the old one is good no more. */
async function keysAtAUrl() {
  const [old, renewed] = [await keyPair('ES256', 'old'), await keyPair('Ed25519', 'new')];
  let [shown, looks] = [old, 0];
  const server = createServer((request, response) => {
    looks += 1;
    response.setHeader('Content-Type', 'application/jwk-set+json');
    response.end(JSON.stringify({ keys: [shown.jwk] }));
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  try {
    const url = `http://127.0.0.1:${server.address().port}/jwks`;
    const app = await register({ flags: [...ITSELF, '--jwks', url], redirectUri: null });
    const [before, after] = [await signing(app, old), await signing(app, renewed)];
    for (let turn = 0; turn < 2; turn += 1) await ownToken(before);
    assert.equal(looks, 1);
    shown = renewed;
    // Two looks lie ten seconds apart.
    await setTimeout(10_200);
    await ownToken(after);
    assert.equal(looks, 2);
    await refusedAsClient(() => oauth.clientCredentialsGrant(before));
  } finally {
    server.close();
  }
}

export const credentials = [
  clientCredentials,
  clientCredentialsNotGranted,
  secretInTheForm,
  awkwardSecret,
  wrongSecret,
  secretRotated,
  signedAssertions,
  signedEverywhere,
  assertionsNotBelieved,
  keysAtAUrl,
];
