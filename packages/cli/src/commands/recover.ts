/** `sealpost recover`: back into an account by its recovery words, when all devices are lost. */
import { readFile } from 'node:fs/promises'
import { Sealpost } from '@sealpost/client'
import { type DeviceType, fromBase64url, SealpostError, serverKeyFingerprint } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { type Command, Option } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { readDeviceName } from '../device-name.ts'
import { advise, type Exit, UsageError } from '../exit-codes.ts'
import { isInteractive, say } from '../output.ts'
import { withHome } from '../session.ts'
import { DEVICE_TYPES } from './init.ts'

type Options = { server: string; name: string; type: DeviceType; recoveryFile?: string }

/** 24 words and some room. */
const WORDS_CHARS_MAX = 4_096

export function addRecover(program: Command): void {
  program
    .command('recover')
    .summary('come back into an account with its recovery words')
    .description(
      'Makes this home the one device of the account that the recovery words belong to: all other devices are revoked.\n' +
        'The words are asked for, or read from a file; they never stand on the command line.',
    )
    .requiredOption('--server <url>', 'address of the relay, with its key after # if you have it')
    .requiredOption('--name <name>', 'name of this device')
    .addOption(new Option('--type <type>', 'type of this device').choices(DEVICE_TYPES).default('desktop'))
    .option('--recovery-file <file>', 'read the recovery words from this file')
    .addHelpText(
      'after',
      examples(
        ['sealpost recover --server https://relay.example --name laptop', 'asks for the words'],
        ['sealpost recover --server https://relay.example --name laptop --recovery-file words.txt', 'for scripts'],
      ),
    )
    .action(endWith(recover))
}

async function recover({ home, signal }: Context, options: Options): Promise<Exit> {
  const name = readDeviceName(options.name)
  const words = options.recoveryFile === undefined ? await askWords(signal) : await readWords(options.recoveryFile)
  const { server, type } = options
  return withHome<Exit>(home, async (opened) => {
    const { sealpost, ...found } = await Sealpost.recover({
      home: opened,
      server,
      name,
      device_type: type,
      words,
      connect: false,
      signal,
    }).catch(advise({ not_found: { hint: 'check the words, and the address of the server' } }))
    say(`the account is yours again; this device is "${name}" (${sealpost.device_id}), all others are revoked`)
    if (!found.history) say('the recovery box of the newest entry does not open: what was sent before cannot be read')
    say(`server key fingerprint: ${await serverKeyFingerprint(nodeCrypto, fromBase64url(found.server_key, 32))}`)
    say(found.pinned ? 'it is the key that you gave' : 'trusted on first use: compare it with what the server shows')
    say('next, to add a device: sealpost pair')
    await sealpost.close()
    return 'ok'
  })
}

async function readWords(path: string): Promise<string> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch {
    throw new UsageError(`the recovery file ${path} cannot be read`, 'check the name of the file, and that you may read it')
  }
  if (text.length > WORDS_CHARS_MAX) throw new SealpostError('invalid_words', `${path} holds more than the 24 recovery words`)
  return text
}

async function askWords(signal: AbortSignal): Promise<string> {
  if (!isInteractive()) throw new UsageError('recover asks for the recovery words, which needs a terminal', 'use --recovery-file FILE')
  const { password, isCancel } = await import('@clack/prompts')
  const answer = await password({ message: 'the 24 recovery words, with spaces between', signal })
  if (isCancel(answer)) throw new SealpostError('aborted', 'ended before the words were given; nothing was changed')
  return answer
}
