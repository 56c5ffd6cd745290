// What becomes of tokens: refresh with its rotations, introspection (RFC 7662), revocation (RFC 7009).

import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { world } from '../world.mjs';
import { call, client, linked, oauth, refused, SCOPE, status } from './registered.mjs';

async function refreshWithRotation() {
  const config = await client();
  const seen = [await linked(config)];
  for (let turn = 0; turn < 2; turn += 1) {
    seen.push(await oauth.refreshTokenGrant(config, seen.at(-1).refresh_token));
    assert.equal(await status(config, seen.at(-1).access_token), 200);
  }
  assert.equal(new Set(seen.map((token) => token.refresh_token)).size, 3);
  assert.equal(new Set(seen.map((token) => token.access_token)).size, 3);
}

/** The old refresh token presented again inside the window gets the same successor. */
async function lostAnswer() {
  const config = await client();
  const first = await linked(config);
  const once = await oauth.refreshTokenGrant(config, first.refresh_token);
  const again = await oauth.refreshTokenGrant(config, first.refresh_token);
  assert.equal(once.refresh_token, again.refresh_token);
  assert.equal(once.access_token, again.access_token);
  assert.equal(await status(config, again.access_token), 200);
}

/** Many refreshes of one token at once, as a client without a lock sends them: all get the one successor. */
async function refreshesAtOnce() {
  const config = await client();
  const first = await linked(config);
  const all = await Promise.all(Array.from({ length: 8 }, () => oauth.refreshTokenGrant(config, first.refresh_token)));
  assert.equal(new Set(all.map((token) => token.refresh_token)).size, 1);
  for (const token of all) assert.equal(await status(config, token.access_token), 200);
}

/** One use, and whoever comes with a used one after the race is over ends the grant. */
async function strictRotation() {
  const config = await client({ flags: ['--rotation', 'strict'] });
  const first = await linked(config);
  const second = await oauth.refreshTokenGrant(config, first.refresh_token);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, first.refresh_token));
  assert.equal(await status(config, second.access_token), 200);
  await setTimeout(2200);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, first.refresh_token));
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, second.refresh_token));
  assert.equal(await status(config, second.access_token), 401);
}

async function noRotation() {
  const config = await client({ flags: ['--rotation', 'none'] });
  const first = await linked(config);
  for (let turn = 0; turn < 2; turn += 1) {
    const next = await oauth.refreshTokenGrant(config, first.refresh_token);
    assert.equal(next.refresh_token ?? first.refresh_token, first.refresh_token);
    assert.equal(await status(config, next.access_token), 200);
  }
}

async function narrowerScope() {
  const config = await client();
  const token = await linked(config);
  const narrow = await oauth.refreshTokenGrant(config, token.refresh_token, { scope: 'p2pi' });
  assert.equal(narrow.scope, 'p2pi');
  await assert.rejects(call(config, narrow.access_token, '/reports/'), (error) => {
    assert.equal(error.status, 403);
    assert.equal(error.cause[0].scheme, 'bearer');
    assert.equal(error.cause[0].parameters.error, 'insufficient_scope');
    assert.equal(error.cause[0].parameters.scope, 'reports');
    return true;
  });
  const whole = await oauth.refreshTokenGrant(config, narrow.refresh_token);
  assert.equal(whole.scope, SCOPE);
  assert.equal(await status(config, whole.access_token, '/reports/'), 200);
  await refused('invalid_scope', () => oauth.refreshTokenGrant(config, whole.refresh_token, { scope: 'p2pi more' }));
}

async function introspection() {
  const config = await client();
  const token = await linked(config);
  const about = await oauth.tokenIntrospection(config, token.access_token);
  assert.equal(about.active, true);
  assert.equal(about.scope, SCOPE);
  assert.equal(about.client_id, config.clientMetadata().client_id);
  assert.equal(about.sub, world.login);
  assert.deepEqual({ ...(await oauth.tokenIntrospection(await client(), token.access_token)) }, { active: false });
}

/** A resource server that is no client of the token's sees what it is registered for, and of other tokens nothing. */
async function introspectionByAResourceServer() {
  const flags = ['--grant', 'client_credentials', '--introspects', 'reports'];
  const server = await client({ flags, redirectUri: null, scope: 'p2pi' });
  const config = await client();
  const token = await linked(config);
  const about = await oauth.tokenIntrospection(server, token.access_token, { token_type_hint: 'access_token' });
  assert.equal(about.active, true);
  assert.equal(about.scope, 'reports');
  assert.equal(about.client_id, config.clientMetadata().client_id);
  assert.equal(about.sub, world.login);
  assert.equal(about.iss, world.two.public_url);
  assert.equal(about.aud, world.two.public_url);
  const nothing = async (text) => assert.deepEqual({ ...(await oauth.tokenIntrospection(server, text)) }, { active: false });
  await nothing(token.refresh_token);
  await nothing((await oauth.refreshTokenGrant(config, token.refresh_token, { scope: 'p2pi' })).access_token);
  await nothing('no token of ours');
}

async function revocation() {
  const config = await client();
  const token = await linked(config);
  assert.equal(await status(config, token.access_token), 200);
  await oauth.tokenRevocation(config, token.refresh_token);
  await oauth.tokenRevocation(config, token.refresh_token);
  await assert.rejects(call(config, token.access_token), (error) => {
    assert.equal(error.status, 401);
    assert.equal(error.cause[0].parameters.error, 'invalid_token');
    return true;
  });
  assert.equal((await oauth.tokenIntrospection(config, token.access_token)).active, false);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, token.refresh_token));
}

/** An access token that is given up ends what it came from (RFC 7009 §2.1); one of a client's own ends alone. */
async function revocationOfAnAccessToken() {
  const config = await client();
  const token = await linked(config);
  await oauth.tokenRevocation(config, token.access_token, { token_type_hint: 'access_token' });
  assert.equal(await status(config, token.access_token), 401);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, token.refresh_token));
  const itself = await client({ flags: ['--grant', 'client_credentials'], redirectUri: null });
  const [first, second] = [await oauth.clientCredentialsGrant(itself), await oauth.clientCredentialsGrant(itself)];
  await oauth.tokenRevocation(itself, first.access_token);
  assert.equal(await status(itself, first.access_token), 401);
  assert.equal(await status(itself, second.access_token), 200);
}

/** What is another client's stays as it is. */
async function revocationByAnother() {
  const config = await client();
  const token = await linked(config);
  const stranger = await client();
  for (const text of [token.access_token, token.refresh_token]) {
    await refused('invalid_grant', () => oauth.tokenRevocation(stranger, text));
  }
  await refused('invalid_grant', () => oauth.refreshTokenGrant(stranger, token.refresh_token));
  assert.equal(await status(config, token.access_token), 200);
  await oauth.refreshTokenGrant(config, token.refresh_token);
}

export const tokens = [
  refreshWithRotation,
  lostAnswer,
  refreshesAtOnce,
  strictRotation,
  noRotation,
  narrowerScope,
  introspection,
  introspectionByAResourceServer,
  revocation,
  revocationOfAnAccessToken,
  revocationByAnother,
];
