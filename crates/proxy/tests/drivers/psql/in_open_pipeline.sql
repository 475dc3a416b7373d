-- Answers without a Sync: the transaction is open although the server has said all it knows.
\startpipeline
insert into said (session, what) values ('in_open_pipeline', 'before') \bind \sendpipeline
select who() \bind \sendpipeline
\flushrequest
\getresults
-- next
insert into said (session, what) values ('in_open_pipeline', 'during') \bind \sendpipeline
select who() \bind \sendpipeline
\endpipeline
-- next
\startpipeline
insert into said (session, what) values ('in_open_pipeline', 'after') \bind \sendpipeline
select what, side from said where session = $1 order by at \bind in_open_pipeline \sendpipeline
\endpipeline
