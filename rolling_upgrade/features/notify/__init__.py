"""Notifications: a notice becomes a message in English or Traditional Chinese, for Slack, mail and a JSON webhook.

A notification never fails or delays its caller beyond a limit. Apart from `inv notify` and the messages of runs, the
package uses the standard library alone (Python 3.10+): the watchdog packs it.
"""
