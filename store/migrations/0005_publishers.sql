-- Which of the broker's users may speak for a tenant. None: anybody who may publish.

alter table voice_settings add column publishers text[] not null default '{}';
