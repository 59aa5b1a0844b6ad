/**
 * Under which user PostgreSQL runs. It refuses root, so for root three ways are tried in this order:
 *
 * | way | files belong to | works |
 * |---|---|---|
 * | `unshare`: a user namespace in which root is called 65534 | root | also below folders that only root can enter; Docker refuses it by default |
 * | `setpriv`: user 65534 with the one capability to pass closed folders | 65534 | in Docker too |
 * | `setuid`: user 65534 | 65534 | only where 65534 can reach the data folder and the binaries |
 *
 * `setpriv --pdeathsig SIGINT` comes last in the command, because the kernel forgets the signal at a change of user:
 * with it PostgreSQL shuts down when the process that started it is killed.
 */
import { execFile } from 'node:child_process'
import { chown, lchown, readdir, stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The user `nobody` on Linux. */
const NOBODY = 65534

export type PostgresAccount = {
  way: 'self' | 'unshare' | 'setpriv' | 'setuid'
  /** Put before a command. */
  prefix: readonly string[]
  /** For `spawn`. */
  ids: { uid?: number; gid?: number }
  /** Who must own the data files; null = whoever runs this process. */
  owner: number | null
}

export async function choosePostgresAccount(only?: PostgresAccount['way']): Promise<PostgresAccount> {
  const dying = (await works('setpriv', ['--pdeathsig', 'SIGINT', 'true'])) ? ['setpriv', '--pdeathsig', 'SIGINT'] : []
  const unshare = ['unshare', '--user', `--map-user=${NOBODY}`, `--map-group=${NOBODY}`, '--', ...dying]
  if (process.getuid?.() !== 0) {
    // initdb wants a name for its user; a container may run under a number that has none.
    const named = hasName() || !(await works('unshare', [...unshare.slice(1), 'true']))
    return { way: named ? 'self' : 'unshare', prefix: named ? dying : unshare, ids: {}, owner: null }
  }
  const ways: PostgresAccount[] = [
    { way: 'unshare', prefix: unshare, ids: {}, owner: 0 },
    {
      way: 'setpriv',
      prefix: [
        'setpriv',
        `--reuid=${NOBODY}`,
        `--regid=${NOBODY}`,
        '--clear-groups',
        // Without it access(2) looks at a path without the capability, and initdb does not find its programs.
        '--securebits=+no_setuid_fixup',
        '--inh-caps=-all,+dac_override',
        '--ambient-caps=-all,+dac_override',
        '--pdeathsig',
        'SIGINT',
      ],
      ids: {},
      owner: NOBODY,
    },
  ]
  for (const account of ways) {
    const [command = '', ...rest] = account.prefix
    if ((only ?? account.way) === account.way && (await works(command, [...rest, 'true']))) return account
  }
  return { way: 'setuid', prefix: [], ids: { uid: NOBODY, gid: NOBODY }, owner: NOBODY }
}

/** Gives a folder and all below it to the account; returns at once when the folder is its own already. */
export async function giveFolder(account: PostgresAccount, folder: string): Promise<void> {
  if (account.owner === null || (await stat(folder)).uid === account.owner) return
  for (const entry of await readdir(folder, { recursive: true })) await lchown(join(folder, entry), account.owner, account.owner)
  // The folder itself last: a walk that was cut short starts again.
  await chown(folder, account.owner, account.owner)
}

function hasName(): boolean {
  try {
    return userInfo().username !== ''
  } catch {
    return false
  }
}

function works(command: string, args: readonly string[]): Promise<boolean> {
  return run(command, [...args], { timeout: 5000 }).then(
    () => true,
    () => false,
  )
}
