/** `sealpost init`: an account and its first device. */
import { Sealpost } from '@sealpost/client'
import { type DeviceType, fromBase64url, serverKeyFingerprint } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { type Command, Option } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { readDeviceName } from '../device-name.ts'
import { type Exit, UsageError } from '../exit-codes.ts'
import { OutputClosed, print, say } from '../output.ts'
import { createRecoveryFile } from '../recovery-file.ts'
import { withHome } from '../session.ts'

type Options = { server: string; name: string; type: DeviceType; recoveryFile?: string; invite?: string }

export const DEVICE_TYPES = ['desktop', 'mobile', 'web'] as const satisfies readonly DeviceType[]

export function addInit(program: Command): void {
  program
    .command('init')
    .summary('create an account and its first device')
    .description(
      'Creates an account and its first device in this home. The recovery words are shown once, on stdout, or written to a file.\n' +
        'The server key is the one after # in the URL; without it, it is trusted on first use and its fingerprint is shown.',
    )
    .requiredOption('--server <url>', 'address of the relay, with its key after # if you have it')
    .requiredOption('--name <name>', 'name of this device')
    .addOption(new Option('--type <type>', 'type of this device').choices(DEVICE_TYPES).default('desktop'))
    .option('--recovery-file <file>', 'write the recovery words to a new file (0600)')
    .option('--invite <code>', 'an invite, where the relay asks for one')
    .addHelpText(
      'after',
      examples(
        ['sealpost init --server http://127.0.0.1:8787 --name laptop', 'trust on first use'],
        ["sealpost init --server 'https://relay.example/#KEY' --name laptop --recovery-file words.txt", 'pinned, for scripts'],
      ),
    )
    .action(endWith(init))
}

async function init({ home, signal }: Context, options: Options): Promise<Exit> {
  const name = readDeviceName(options.name)
  const file = options.recoveryFile === undefined ? null : await createRecoveryFile(options.recoveryFile)
  let handedOut = false
  try {
    await withHome(home, async (opened) => {
      const { sealpost, server_key, pinned } = await Sealpost.create({
        home: opened,
        server: options.server,
        name,
        device_type: options.type,
        ...(options.invite === undefined ? {} : { invite: options.invite }),
        connect: false,
        // The words exist nowhere else: they are with the person before there is an account to lose.
        onWords: async (words) => {
          await (file === null ? showWords(words) : file.write(words))
          handedOut = true
        },
        onRefused: () => {
          handedOut = false
        },
        signal,
      })
      say(`account created; this device is "${name}" (${sealpost.device_id})`)
      say(`server key fingerprint: ${await serverKeyFingerprint(nodeCrypto, fromBase64url(server_key, 32))}`)
      say(pinned ? 'it is the key that you gave' : 'trusted on first use: compare it with what the server shows')
      if (file !== null) say(`recovery words written to ${file.path}: keep it where the devices are not`)
      say('next, to add a device: sealpost pair')
      await sealpost.close()
    })
  } catch (error) {
    if (!handedOut) await file?.discard()
    throw error
  }
  return 'ok'
}

async function showWords(words: string): Promise<void> {
  say('recovery words, shown this once; write them down, they are the only way back without a device:')
  const all = words.split(' ')
  const lines = Array.from({ length: Math.ceil(all.length / 6) }, (_, i) => all.slice(i * 6, i * 6 + 6).join(' '))
  await print(`${lines.join('\n')}\n`).catch((error: unknown) => {
    if (!(error instanceof OutputClosed)) throw error
    throw new UsageError(
      'the recovery words could not be shown: nobody reads stdout; no account was made',
      'read stdout, or use --recovery-file FILE',
    )
  })
}
