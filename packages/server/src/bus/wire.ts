/**
 * What carries messages of the bus between processes. The best effort is enough: a message may be lost, doubled, late or out of
 * order. Topics are users, by their `user_no`.
 */
import type { Bytes } from '@sealpost/protocol'

export interface Wire {
  /** Never throws and never blocks: what cannot leave now is lost. What `message` returns is good until the next message is made. */
  publish(topic: number, message: () => Bytes): void
  /** Wanted from now on, and again after every interruption. */
  subscribe(topic: number): void
  unsubscribe(topic: number): void
  /** Nothing of it goes on. */
  close(): Promise<void>
}

export type WireListener = {
  received(topic: number, message: Bytes): void
  /** `true`: what is published now reaches all that have subscribed, and all wanted topics are subscribed to. */
  changed(up: boolean): void
}

export type OpenWire = (listener: WireListener) => Wire
