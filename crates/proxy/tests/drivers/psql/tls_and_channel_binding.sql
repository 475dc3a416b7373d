insert into said (session, what) values (current_setting('application_name'), 'before');
-- next
insert into said (session, what) values (current_setting('application_name'), 'after');
select string_agg(what || '@' || side, ' ' order by at) from said where session = current_setting('application_name');
select ssl from pg_stat_ssl where pid = pg_backend_pid();
