// Pushed requests (PAR, RFC 9126), tokens that are bound to a key (DPoP, RFC 9449), and both with signatures: the FAPI 2.0 Security Profile.

import assert from 'node:assert/strict';
import { decides, world } from '../world.mjs';
import { keyPair, keySet, signing } from './credentials.mjs';
import { asked, CALLBACK, call, client, linked, oauth, refused, register, SCOPE, status, watched } from './registered.mjs';

const CALLED = '/p2pi/orders?x=1';

/** What the library proves with: a key, and the nonces that it has been given. */
async function handle(config, pair) {
  return oauth.getDPoPHandle(config, pair ?? (await oauth.randomDPoPKeyPair()));
}

async function pushedRequest() {
  const config = await client();
  const { url, location, checks } = await asked(config, { pushed: true });
  assert.deepEqual([...url.searchParams.keys()].sort(), ['client_id', 'request_uri']);
  const token = await oauth.authorizationCodeGrant(config, location, checks);
  assert.equal(token.scope, SCOPE);
  assert.equal(await status(config, token.access_token), 200);
  // It is used once.
  await assert.rejects(decides(url, CALLBACK), /\(400\)/);
}

/** What is wrong with a request is said before a browser sees it. */
async function pushedRequestRefused() {
  const config = await client();
  await refused('invalid_scope', () => asked(config, { pushed: true, scope: 'p2pi more' }));
  await refused('invalid_target', () => asked(config, { pushed: true, resource: world.one.public_url }));
  await refused('invalid_request', () => asked(config, { pushed: true, redirect_uri: 'https://other.example/callback' }));
  await refused('invalid_request', () => asked(config, { pushed: true, code_challenge_method: 'plain' }));
  await refused('invalid_request', () => asked(config, { pushed: true, request_uri: 'urn:example:another' }));
}

async function pushedRequestRequired() {
  const config = await client({ flags: ['--require-par'] });
  const { location, checks } = await asked(config, { decision: 'not-asked' });
  await refused('invalid_request', () => oauth.authorizationCodeGrant(config, location, checks));
  await linked(config, { pushed: true });
}

/** With every algorithm that both sides have: the library is told a nonce, and repeats what it asked. */
async function boundTokens() {
  for (const algorithm of ['Ed25519', 'ES256', 'PS256']) {
    const config = await client({ flags: ['--dpop'] });
    const pair = await oauth.randomDPoPKeyPair(algorithm);
    const options = { DPoP: await handle(config, pair) };
    const seen = watched(config);
    const token = await linked(config, { options });
    assert.deepEqual(seen.splice(0), [['/oauth/token', 400], ['/oauth/token', 200]]);
    assert.equal(token.token_type, 'dpop');
    const called = await (await call(config, token.access_token, CALLED, options)).json();
    assert.equal(called.headers['p2pi-subject'], world.login);
    assert.equal(called.headers.dpop, undefined, 'the application sees the proof');
    const renewed = await oauth.refreshTokenGrant(config, token.refresh_token, undefined, options);
    assert.equal(await status(config, renewed.access_token, CALLED, options), 200);
    assert.deepEqual(seen.map(([, answered]) => answered), [200, 200, 200], 'the nonce is good everywhere');
  }
}

/** The gateway asks for a nonce too, and a token that is bound is nothing without its key. */
async function boundTokensAtTheGateway() {
  const config = await client({ flags: ['--dpop'] });
  const pair = await oauth.randomDPoPKeyPair();
  const token = await linked(config, { options: { DPoP: await handle(config, pair) } });
  const seen = watched(config);
  assert.equal(await status(config, token.access_token, CALLED, { DPoP: await handle(config, pair) }), 200);
  assert.deepEqual(seen.map(([, answered]) => answered), [401, 200]);
  const refusedWith = (code, options) =>
    assert.rejects(call(config, token.access_token, CALLED, options), (error) => {
      assert.equal(error.status, 401);
      assert.equal(error.cause.find(({ scheme }) => scheme === 'dpop').parameters.error, code);
      return true;
    });
  await refusedWith('invalid_token', undefined);
  await refusedWith('invalid_token', { DPoP: await handle(config) });
  const elsewhere = { htu: `${world.one.public_url}/p2pi/orders` };
  const changed = { [oauth.modifyAssertion]: (header, payload) => Object.assign(payload, elsewhere) };
  await refusedWith('invalid_dpop_proof', { DPoP: oauth.getDPoPHandle(config, pair, changed) });
}

async function proofMissingOrWrong() {
  const config = await client({ flags: ['--dpop'] });
  const { location, checks } = await asked(config);
  await refused('invalid_dpop_proof', () => oauth.authorizationCodeGrant(config, location, checks));
  const wrong = oauth.getDPoPHandle(config, await oauth.randomDPoPKeyPair(), {
    [oauth.modifyAssertion]: (header, payload) => Object.assign(payload, { htm: 'GET' }),
  });
  await refused('invalid_dpop_proof', () => oauth.authorizationCodeGrant(config, location, checks, undefined, { DPoP: wrong }));
  await oauth.authorizationCodeGrant(config, location, checks, undefined, { DPoP: await handle(config) });
}

/** Whoever shows a key gets a token that is bound to it, registered for that or not; its own client's secret is no way around. */
async function boundUnasked() {
  const config = await client({ flags: ['--grant', 'client_credentials'], redirectUri: null });
  const options = { DPoP: await handle(config) };
  const token = await oauth.clientCredentialsGrant(config, { scope: 'p2pi' }, options);
  assert.equal(token.token_type, 'dpop');
  assert.equal(await status(config, token.access_token, CALLED, options), 200);
  assert.equal(await status(config, token.access_token), 401);
  const about = await oauth.tokenIntrospection(config, token.access_token);
  assert.deepEqual(about.cnf, { jkt: await options.DPoP.calculateThumbprint() });
  assert.equal(about.token_type, 'DPoP');
}

/** The code is bound before it is made: by the proof of the pushed request, or by a thumbprint in the request itself. */
async function boundCode() {
  const config = await client();
  const options = { DPoP: await handle(config) };
  const ways = [{ pushed: true, options }, { dpop_jkt: await options.DPoP.calculateThumbprint() }];
  for (const way of ways) {
    const { location, checks } = await asked(config, way);
    const other = { DPoP: await handle(config) };
    await refused('invalid_grant', () => oauth.authorizationCodeGrant(config, location, checks, undefined, other));
    const again = await asked(config, way);
    await oauth.authorizationCodeGrant(config, again.location, again.checks, undefined, options);
  }
}

/** The refresh token of a client without a secret is bound as its access token is (RFC 9449 §5). */
async function boundRefreshToken() {
  const config = await client({ flags: ['--auth-method', 'none', '--dpop'], authentication: oauth.None });
  const options = { DPoP: await handle(config) };
  const token = await linked(config, { options });
  const other = { DPoP: await handle(config) };
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, token.refresh_token, undefined, other));
  const renewed = await oauth.refreshTokenGrant(config, token.refresh_token, undefined, options);
  assert.equal(await status(config, renewed.access_token, CALLED, options), 200);
}

/** All at once, from the pushed request to the revocation. */
async function fapi2() {
  const pair = await keyPair('PS256', 'signs');
  const app = await register({ flags: ['--profile', 'fapi2', '--jwks', await keySet(pair)] });
  const config = await signing(app, pair);
  const options = { DPoP: await handle(config) };
  const { location, checks } = await asked(config, { pushed: true, options });
  assert.deepEqual([...location.searchParams.keys()].sort(), ['code', 'iss', 'state']);
  const token = await oauth.authorizationCodeGrant(config, location, checks, undefined, options);
  assert.equal(token.token_type, 'dpop');
  assert.equal(await status(config, token.access_token, CALLED, options), 200);
  const renewed = await oauth.refreshTokenGrant(config, token.refresh_token, undefined, options);
  assert.equal(renewed.refresh_token ?? token.refresh_token, token.refresh_token, 'nothing is rotated');
  assert.equal(await status(config, renewed.access_token, CALLED, options), 200);
  assert.equal((await oauth.tokenIntrospection(config, renewed.access_token)).active, true);
  await oauth.tokenRevocation(config, token.refresh_token);
  assert.equal(await status(config, renewed.access_token, CALLED, options), 401);
}

/** What the profile forbids. */
async function fapi2Refusals() {
  const pair = await keyPair('Ed25519', 'signs');
  const app = await register({ flags: ['--profile', 'fapi2', '--jwks', await keySet(pair)] });
  const config = await signing(app, pair);
  const unpushed = await asked(config, { decision: 'not-asked' });
  await refused('invalid_request', () => oauth.authorizationCodeGrant(config, unpushed.location, unpushed.checks));
  const { location, checks } = await asked(config, { pushed: true });
  await refused('invalid_dpop_proof', () => oauth.authorizationCodeGrant(config, location, checks));
  await assert.rejects(client({ flags: ['--profile', 'fapi2'] }), /private_key_jwt/);
}

export const bound = [
  pushedRequest,
  pushedRequestRefused,
  pushedRequestRequired,
  boundTokens,
  boundTokensAtTheGateway,
  proofMissingOrWrong,
  boundUnasked,
  boundCode,
  boundRefreshToken,
  fapi2,
  fapi2Refusals,
];
