// What the suites in JavaScript need of the world that play.py made: two's command line, the browser part, and the line per scenario.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

const file = process.argv[2];
export const world = JSON.parse(readFileSync(file, 'utf8'));
const run = promisify(execFile);

/** A library out of the folder that install.sh filled. */
export async function library(name) {
  const from = createRequire(join(world.libraries, 'package.json'));
  return import(pathToFileURL(from.resolve(name)).href);
}

/** Runs a command of instance two, with `line` on its standard input; gives the document that it prints. */
export async function two(argument, line) {
  const running = run(world.two.binary, ['-c', world.two.config, '--json', ...argument]);
  // A command that reads nothing may have ended by then.
  running.child.stdin.on('error', () => {});
  running.child.stdin.end(line === undefined ? '' : `${line}\n`);
  return JSON.parse((await running).stdout);
}

/** The browser part at instance two: log in, Allow or Decline; gives the address that the browser is sent back to. */
export async function decides(url, leavesAt, decision = 'allow') {
  const { stdout } = await run(process.env.PYTHON, ['-m', 'lib.visit', file, url.href, leavesAt, decision]);
  return new URL(stdout.trim());
}

/** Runs scenarios in order and says in one line how each ended; a failed one does not keep the next from running. */
export async function play(suite, scenarios) {
  for (const scenario of scenarios) {
    const name = scenario.name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    try {
      await scenario();
      console.log(`ok ${suite}/${name}`);
    } catch (error) {
      console.error(error);
      const why = `${error.name}: ${error.message} ${error.cause ? JSON.stringify(error.cause) : ''}`.replace(/\s+/g, ' ');
      console.log(`FAILED ${suite}/${name}: ${why.slice(0, 600)}`);
    }
  }
}
