-- Webhooks' secrets are the task service's, which signs: no account keeps another.

alter table accounts drop column webhook_secret;
