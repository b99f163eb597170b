"""The channels that the settings name; the log is always one of them."""

from __future__ import annotations

from typing import Protocol

from pydantic import SecretStr

from fraud_pipeline.adapters.notices.channel import Channel
from fraud_pipeline.adapters.notices.log_channel import Log
from fraud_pipeline.adapters.notices.mail import Mail, MailServer
from fraud_pipeline.adapters.notices.pagerduty import PagerDuty
from fraud_pipeline.adapters.notices.slack import Slack
from fraud_pipeline.adapters.notices.webhook import Webhook
from fraud_pipeline.domain.notice import Severity, at_least


class NotifySettings(Protocol):
    """Of the settings, what the channels need."""

    @property
    def notify_webhook_url(self) -> SecretStr: ...
    @property
    def notify_webhook_secret(self) -> SecretStr: ...
    @property
    def notify_slack_url(self) -> SecretStr: ...
    @property
    def notify_pagerduty_key(self) -> SecretStr: ...
    @property
    def notify_pagerduty_url(self) -> str: ...
    @property
    def notify_smtp_url(self) -> SecretStr: ...
    @property
    def notify_mail_from(self) -> str: ...
    @property
    def notify_mail_to(self) -> str: ...
    @property
    def notify_least_severity(self) -> Severity: ...
    @property
    def notify_source(self) -> str: ...


def channels_of(settings: NotifySettings) -> tuple[Channel, ...]:
    """The log, and every channel whose address is set."""
    severities, source = at_least(settings.notify_least_severity), settings.notify_source
    found: list[Channel] = [Log()]
    if webhook := settings.notify_webhook_url.get_secret_value():
        secret = settings.notify_webhook_secret.get_secret_value()
        found.append(Webhook(webhook, secret, source=source, severities=severities))
    if slack := settings.notify_slack_url.get_secret_value():
        found.append(Slack(slack, source=source, severities=severities))
    if key := settings.notify_pagerduty_key.get_secret_value():
        found.append(PagerDuty(settings.notify_pagerduty_url, key, source=source, severities=severities))
    if smtp := settings.notify_smtp_url.get_secret_value():
        receivers = tuple(one.strip() for one in settings.notify_mail_to.split(",") if one.strip())
        server = MailServer.parse(smtp)
        found.append(
            Mail(server, sender=settings.notify_mail_from, receivers=receivers, source=source, severities=severities)
        )
    return tuple(found)
