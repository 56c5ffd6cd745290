// openid-client as a client of ours: `main.mjs WORLD`. Each scenario registers a client of its own at instance two.

import { play } from '../world.mjs';
import { bound } from './bound.mjs';
import { certificates } from './certificates.mjs';
import { codeFlow } from './code-flow.mjs';
import { credentials } from './credentials.mjs';
import { tokens } from './tokens.mjs';

await play('openid-client', [...codeFlow, ...tokens, ...credentials, ...bound, ...certificates]);
