/** The bounds of a socket beside those that all sessions share; units in the names. */
import { LIMITS } from '@sealpost/protocol'
import { RELAY_LIMITS, type RelayLimits } from '../relay/limits.ts'

export type GatewayLimits = RelayLimits & {
  handshakeFrameBytesMax: number
  fragmentsMax: number
  inboundMessagesMax: number
  /** From the first byte of a message to its last. */
  messageMs: number
  pingMs: number
  pongMs: number
}

export const GATEWAY_LIMITS: GatewayLimits = {
  ...RELAY_LIMITS,
  handshakeFrameBytesMax: LIMITS.handshakeFrameBytesMax,
  fragmentsMax: LIMITS.fragmentsMax,
  inboundMessagesMax: LIMITS.inboundMessagesMax,
  messageMs: 30_000,
  pingMs: LIMITS.pingMs,
  pongMs: LIMITS.pongMs,
}
