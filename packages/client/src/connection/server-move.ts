/**
 * Whether the server at another address is the one that this account knows (protocol.md §4): a handshake up to server_hello, whose
 * signature nobody makes without the pinned key. What a server says of itself elsewhere counts for nothing. This device is not named.
 */
import { type Bytes, equalBytes, keyTail, LIMITS, parseServerUrl, SealpostError, socketUrl } from '@sealpost/protocol'
import { SUBPROTOCOL } from './channel.ts'
import { createChannelKeys } from './channel-keys.ts'
import { closeError, unreachableError } from '../failure.ts'
import type { Home, Identity } from '../ports.ts'
import { defer, orAborted, within } from '../signal.ts'

/** The socket, then its answer. */
const PROOF_MS = LIMITS.handshakeStepMs * 2

/** The address as it is stored. Throws `invalid_request`, `server_identity`, `unsupported_version`, `unreachable`, `aborted`. */
export async function proveServer(home: Home, known: Identity, server: string, signal?: AbortSignal): Promise<string> {
  const { url, pin } = parseServerUrl(server)
  if (pin !== null && !equalBytes(pin, known.server_key))
    throw new SealpostError(
      'server_identity',
      `the key after # (${keyTail(pin)}) is not the one that this account knows (${keyTail(known.server_key)}); nothing was changed`,
    )
  try {
    await shakeHands(home, known, url, signal)
    return url
  } catch (error) {
    throw explained(error, url, known.server_key)
  }
}

async function shakeHands(home: Home, known: Identity, url: string, signal: AbortSignal | undefined): Promise<void> {
  const keys = createChannelKeys(home.crypto, () => known)
  const answer = defer<string>()
  const socket = home.transport.connect(socketUrl(url), [SUBPROTOCOL], {
    opened: () => void keys.startHello().then((hello) => socket.sendText(hello), answer.reject),
    text: answer.resolve,
    binary: () => answer.reject(new SealpostError('invalid_message', 'a sealed frame before the handshake')),
    closed: (code, _reason, cause) => answer.reject(closeError(code, cause, url)),
  })
  try {
    await keys.finishHello(await within(home.clock, PROOF_MS, orAborted(answer.promise, signal), () => unreachableError(url)))
  } finally {
    socket.close(1000)
  }
}

function explained(error: unknown, url: string, server_key: Bytes): unknown {
  if (!(error instanceof SealpostError)) return error
  switch (error.code) {
    case 'server_identity':
    case 'invalid_signature':
      return new SealpostError(
        'server_identity',
        `the server at ${url} does not hold the key that this account knows (${keyTail(server_key)}); nothing was changed`,
        { cause: error },
      )
    case 'invalid_message':
    case 'invalid_encoding':
      return new SealpostError('unreachable', `what answers at ${url} is not a Sealpost server; nothing was changed`, { cause: error })
    default:
      return error
  }
}
