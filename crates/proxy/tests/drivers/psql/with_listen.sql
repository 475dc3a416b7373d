listen news;
-- next
select who();
