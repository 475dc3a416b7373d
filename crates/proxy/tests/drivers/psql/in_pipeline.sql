-- Each statement with a Sync of its own.
\startpipeline
select pg_advisory_xact_lock_shared(4711) \bind \sendpipeline
\syncpipeline
insert into said (session, what) values ('in_pipeline', $1) returning what, side \bind early1 \sendpipeline
\syncpipeline
insert into said (session, what) values ('in_pipeline', $1) returning what, side \bind early2 \sendpipeline
\syncpipeline
\flush
-- next
insert into said (session, what) values ('in_pipeline', $1) returning what \bind late1 \sendpipeline
\syncpipeline
insert into said (session, what) values ('in_pipeline', $1) returning what \bind late2 \sendpipeline
\syncpipeline
\flush
-- next
select 'after', who() \bind \sendpipeline
\endpipeline
select what from said where session = 'in_pipeline' order by at;
select who();
