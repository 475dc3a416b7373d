copy said (session, what) from stdin;
in_copy_in	line 1
in_copy_in	line 2
-- next, unheard
in_copy_in	line 3
\.
-- next
insert into said (session, what) values ('in_copy_in', 'after');
select what, side from said where session = 'in_copy_in' order by what;
